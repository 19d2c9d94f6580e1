/* UTF-8, and the alphabet in which byte-level vocabularies write bytes. */
#include "tokenizer_internal.h"
#include <string.h>

/* Length of the well-formed character at p, or minus the length of the longest prefix of one (at least 1). */
static int utf8_length(const unsigned char *p, size_t n_left)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    int n;
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return -1;
    if (c < 0xe0) {
        n = 2;
    } else if (c < 0xf0) {
        n = 3;
        low = c == 0xe0 ? 0xa0 : 0x80;  /* no overlong forms */
        high = c == 0xed ? 0x9f : 0xbf; /* no surrogates */
    } else {
        n = 4;
        low = c == 0xf0 ? 0x90 : 0x80;
        high = c == 0xf4 ? 0x8f : 0xbf; /* nothing above U+10FFFF */
    }
    for (int i = 1; i < n; i++) {
        if ((size_t)i == n_left || p[i] < low || p[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

size_t tokenizer__utf8_valid(const char *text, size_t n_bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0;
    while (at < n_bytes) {
        uint64_t word;
        if (at + sizeof word <= n_bytes) {
            memcpy(&word, p + at, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                at += sizeof word;
                continue;
            }
        }
        int n = utf8_length(p + at, n_bytes - at);
        if (n < 0)
            return at;
        at += (size_t)n;
    }
    return at;
}

int tokenizer__utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

enum status tokenizer__utf8_lossy(struct buf *out, const char *text, size_t n_bytes, struct err *err)
{
    size_t kept = 0, at = 0;
    while (at < n_bytes) {
        at += tokenizer__utf8_valid(text + at, n_bytes - at);
        if (at == n_bytes)
            break;
        TRY(buf_append(out, text + kept, at - kept, err));
        TRY(buf_append(out, "\xef\xbf\xbd", 3, err));
        at += (size_t)-utf8_length((const unsigned char *)text + at, n_bytes - at);
        kept = at;
    }
    return buf_append(out, text + kept, n_bytes - kept, err);
}

/* Printable Latin-1 stands for itself; the other 68 bytes are, in order, U+0100 and up. */
static bool byte_is_itself(uint32_t c)
{
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255);
}

uint32_t tokenizer__byte_to_char(unsigned char byte)
{
    if (byte_is_itself(byte))
        return byte;
    if (byte <= 32)
        return 256u + byte;
    return byte == 173 ? 256 + 67 : 256u + 33 + (byte - 127u);
}

int tokenizer__char_to_byte(uint32_t c)
{
    if (c < 256)
        return byte_is_itself(c) ? (int)c : -1;
    if (c <= 256 + 32)
        return (int)c - 256;
    if (c < 256 + 67)
        return (int)c - 256 - 33 + 127;
    return c == 256 + 67 ? 173 : -1;
}
