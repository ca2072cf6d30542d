"""The tests of the project, by layer: unit, docker, vm, and the lab that boots guests."""
