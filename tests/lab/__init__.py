"""The lab boots real kernels under QEMU and runs commands and tests inside them.

It answers one question for developers and CI: does this tree work on the kernels that users have?
Standard library only, so that any python3 from 3.11 on runs it: `python3 -m tests.lab --help`.
"""
