/* What people find in place of a weights file: failed downloads and other formats. */
#include "checkpoint_internal.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct quoted checkpoint__quote(const char *text, size_t n_bytes)
{
    struct quoted q;
    size_t at = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        bool is_plain = c >= 0x20 && c != 0x7f && c < 0x80;
        if (at + 4 + sizeof "..." > sizeof q.text) {
            memcpy(q.text + at, "...", 3);
            at += 3;
            break;
        }
        if (is_plain)
            q.text[at++] = (char)c;
        else
            at += (size_t)snprintf(q.text + at, 5, "\\x%02x", c);
    }
    q.text[at] = '\0';
    return q;
}

struct quoted checkpoint__quote_z(const char *text)
{
    return checkpoint__quote(text, strlen(text));
}

static bool starts_with(const unsigned char *data, size_t n_bytes, const char *text)
{
    size_t n = strlen(text);
    return n_bytes >= n && strncasecmp((const char *)data, text, n) == 0;
}

enum status checkpoint__check_foreign(const unsigned char *data, size_t n_bytes, const char *path,
                                      enum foreign_kind expected, struct err *err)
{
    /* Protocol 2, then the 10-byte integer that torch.save wrote first before version 1.6. */
    static const unsigned char legacy[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c,
                                           0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    if (n_bytes == 0) {
        err_set(err, ST_INPUT, "\"%s\" is empty", path);
        return err_hint(err, "download or copy it again");
    }
    if (starts_with(data, n_bytes, "version https://git-lfs")) {
        err_set(err, ST_INPUT, "\"%s\" is a Git LFS pointer, not the file itself", path);
        return err_hint(err, "run `git lfs pull` in its repository, or download the file itself");
    }
    size_t i = 0;
    while (i < n_bytes && i < 64 && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t'))
        i++;
    if (starts_with(data + i, n_bytes - i, "<!doctype") || starts_with(data + i, n_bytes - i, "<html") ||
        starts_with(data + i, n_bytes - i, "<?xml")) {
        err_set(err, ST_INPUT, "\"%s\" is a web page, not a weights file", path);
        return err_hint(err, "the download answered with an error page; download it again");
    }
    if (n_bytes >= sizeof legacy && memcmp(data, legacy, sizeof legacy) == 0) {
        err_set(err, ST_INPUT, "\"%s\" is in torch's format from before version 1.6, which is not read",
                path);
        return err_hint(err, "load it with torch and save it again");
    }
    if (n_bytes >= 4 && memcmp(data, "GGUF", 4) == 0)
        return err_set(err, ST_INPUT, "\"%s\" is a GGUF file, which is not read", path);
    if (expected != FOREIGN_ZIP && n_bytes >= 4 && memcmp(data, "PK\3\4", 4) == 0)
        return err_set(err, ST_INPUT, "\"%s\" is a zip archive (a torch file?), not a safetensors file",
                       path);
    return ST_OK;
}
