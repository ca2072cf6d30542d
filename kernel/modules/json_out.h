/* SPDX-License-Identifier: GPL-2.0 */
/*
 * JSON text in kernel memory: a growing text in fixed chunks, and the escaping
 * of strings that a process chooses for itself.
 *
 * The text grows a chunk at a time, so nothing written is ever copied or
 * produced again, and no allocation is larger than a chunk. Nothing here locks:
 * one writer fills a text before anybody reads it, afterwards it does not change.
 */
#ifndef SO1_JSON_OUT_H
#define SO1_JSON_OUT_H

#include <linux/err.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uio.h>
#include <linux/xarray.h>

#include "budget.h"

#define SO1_CHUNK SZ_16K

/* The longest JSON form of one byte is a \u escape. */
#define SO1_ESCAPED_MAX 6

/* Decimal digits of the largest u64. */
#define SO1_DIGITS_MAX 20

struct so1_text {
	struct xarray chunks;	/* SO1_CHUNK bytes each, index 0 upwards */
	size_t len;
	struct so1_budget *budget;	/* each chunk is charged to hold in it */
	struct so1_hold hold;
};

static void so1_text_init(struct so1_text *text, struct so1_budget *budget)
{
	xa_init_flags(&text->chunks, XA_FLAGS_ACCOUNT);
	text->len = 0;
	text->budget = budget;
}

static void so1_text_free(struct so1_text *text)
{
	unsigned long index;
	void *chunk;

	xa_for_each(&text->chunks, index, chunk)
		kvfree(chunk);
	xa_destroy(&text->chunks);
	text->len = 0;
}

/*
 * Returns the chunk that holds offset @pos of a text being written, or -EBUSY or
 * -ENOMEM as a pointer. May sleep.
 */
static char *so1_text_chunk(struct so1_text *text, size_t pos)
{
	unsigned long index = pos / SO1_CHUNK;
	char *chunk = xa_load(&text->chunks, index);
	int err;

	if (chunk)
		return chunk;
	if (!so1_budget_charge(text->budget, &text->hold, SO1_CHUNK))
		return ERR_PTR(-EBUSY);
	/*
	 * Charged to the reader, whose memory limit thus bounds it. He is told
	 * ENOMEM; the log is not for what any user can bring about.
	 */
	chunk = kvmalloc(SO1_CHUNK, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!chunk)
		return ERR_PTR(-ENOMEM);
	err = xa_err(xa_store(&text->chunks, index, chunk, GFP_KERNEL));
	if (err) {
		kvfree(chunk);
		return ERR_PTR(err);
	}
	return chunk;
}

/* Returns 0, -EBUSY or -ENOMEM. May sleep. */
static int so1_text_append(struct so1_text *text, const char *data, size_t len)
{
	while (len) {
		char *chunk = so1_text_chunk(text, text->len);
		size_t offset = text->len % SO1_CHUNK;
		size_t part = min_t(size_t, len, SO1_CHUNK - offset);

		if (IS_ERR(chunk))
			return PTR_ERR(chunk);
		memcpy(chunk + offset, data, part);
		text->len += part;
		data += part;
		len -= part;
	}
	return 0;
}

/* Returns how many bytes went to @to, 0 at the end of the text. May sleep. */
static ssize_t so1_text_copy(struct so1_text *text, loff_t pos,
			     struct iov_iter *to)
{
	size_t done = 0;

	while (pos < text->len && iov_iter_count(to)) {
		const char *chunk = xa_load(&text->chunks, pos / SO1_CHUNK);
		size_t offset = pos % SO1_CHUNK;
		size_t part = min_t(size_t, SO1_CHUNK - offset, text->len - pos);
		size_t copied;

		part = min(part, iov_iter_count(to));
		copied = copy_to_iter(chunk + offset, part, to);
		done += copied;
		pos += copied;
		if (copied < part)
			return done ? done : -EFAULT;
	}
	return done;
}

/*
 * Length of the valid UTF-8 character at the start of @s, or 0. *@bad is then
 * how many bytes one U+FFFD stands for: the longest start of some character, as
 * Unicode recommends and Python's errors="replace" does it.
 */
static size_t so1_utf8_len(const unsigned char *s, size_t len, size_t *bad)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t want, i;

	*bad = 1;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	/* The second byte has to rule out overlong forms, surrogates and > 10FFFF. */
	switch (s[0]) {
	case 0xe0:
		low = 0xa0;
		break;
	case 0xed:
		high = 0x9f;
		break;
	case 0xf0:
		low = 0x90;
		break;
	case 0xf4:
		high = 0x8f;
		break;
	}
	for (i = 1; i < want; i++) {
		if (i >= len || s[i] < low || s[i] > high) {
			*bad = i;
			return 0;
		}
		low = 0x80;
		high = 0xbf;
	}
	return want;
}

/*
 * Writes @src as the inside of a JSON string, and returns how long that is. @dst
 * needs room for SO1_ESCAPED_MAX bytes for each of @src's.
 */
static size_t so1_json_escape(char *dst, const char *src, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const char *begin = dst;

	while (len) {
		unsigned char c = *src;
		size_t bad, n = so1_utf8_len((const unsigned char *)src, len, &bad);

		if (!n) {
			memcpy(dst, "\xef\xbf\xbd", 3);
			dst += 3;
			n = bad;
		} else if (c == '"' || c == '\\') {
			*dst++ = '\\';
			*dst++ = c;
		} else if (c < 0x20) {
			memcpy(dst, "\\u00", 4);
			dst[4] = hex[c >> 4];
			dst[5] = hex[c & 0xf];
			dst += 6;
		} else {
			memcpy(dst, src, n);
			dst += n;
		}
		src += n;
		len -= n;
	}
	return dst - begin;
}

/*
 * Writes @value in decimal to @dst, which has room for SO1_DIGITS_MAX bytes, and
 * returns how many it took. A line has a dozen numbers: printf() takes several
 * times as long for each.
 */
static size_t so1_decimal(char *dst, u64 value)
{
	char digits[SO1_DIGITS_MAX];
	size_t at = sizeof(digits);

	do {
		u64 tens = div_u64(value, 10);

		digits[--at] = '0' + (value - tens * 10);
		value = tens;
	} while (value);
	memcpy(dst, digits + at, sizeof(digits) - at);
	return sizeof(digits) - at;
}

#endif /* SO1_JSON_OUT_H */
