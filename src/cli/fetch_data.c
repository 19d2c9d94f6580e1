#include "fetch_data.h"
#include "data/examples.h"
#include "hub/download.h"
#include "util/file.h"
#include "util/log.h"

#include <ctype.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRIVE      "https://drive.google.com"
#define PAGE_BYTES ((size_t)1 << 20)

/* Value of an attribute in the tag that begins at `tag` and ends before `end`, with the five entities of HTML
 * read. */
static bool attribute(const char *tag, const char *end, const char *name, char *out, size_t n_bytes)
{
    static const struct {
        const char *text, *sign;
    } entities[] = {{"&amp;", "&"}, {"&quot;", "\""}, {"&#39;", "'"}, {"&lt;", "<"}, {"&gt;", ">"}};
    char key[32];
    size_t n = 0;
    snprintf(key, sizeof key, " %s=\"", name);
    const char *at = strstr(tag, key);
    if (!at || at >= end)
        return false;
    for (at += strlen(key); at < end && *at != '"' && n + 1 < n_bytes;) {
        size_t i = 0;
        while (i < 5 && strncmp(at, entities[i].text, strlen(entities[i].text)) != 0)
            i++;
        out[n++] = i < 5 ? entities[i].sign[0] : *at;
        at += i < 5 ? strlen(entities[i].text) : 1;
    }
    out[n] = 0;
    return true;
}

/* The page that asks whether a large file is wanted without a virus scan: its form's address with the hidden
 * fields. */
static enum status confirmed_url(const char *page, struct buf *url, struct err *err)
{
    char value[1024], name[128], type[32];
    const char *form = strstr(page, "<form"), *end = form ? strchr(form, '>') : NULL;
    const char *form_end = form ? strstr(form, "</form>") : NULL;
    const char *separator = "?";
    if (!form || !end || !form_end || !attribute(form, end, "action", value, sizeof value))
        return err_set(err, ST_NET, "a web page came instead of the file");
    TRY(buf_puts(url, value, err)); /* "/..." is below the host that was asked */
    if (strchr(value, '?'))
        separator = "&";
    for (const char *tag = strstr(end, "<input"); tag && tag < form_end; tag = strstr(tag + 1, "<input")) {
        const char *tag_end = strchr(tag, '>');
        if (!tag_end || !attribute(tag, tag_end, "type", type, sizeof type) || strcmp(type, "hidden") != 0 ||
            !attribute(tag, tag_end, "name", name, sizeof name) ||
            !attribute(tag, tag_end, "value", value, sizeof value))
            continue;
        TRY(buf_puts(url, separator, err));
        TRY(url_encode(url, name, false, err));
        TRY(buf_puts(url, "=", err));
        TRY(url_encode(url, value, false, err));
        separator = "&";
    }
    return ST_OK;
}

/* "scheme://host:port" of a URL is what its client is opened for: http is spoken where the user says http,
 * and where https is said no redirect leads away from it. */
static enum status open_client(struct http **h, const char *url, struct err *err)
{
    const char *host = strstr(url, "://");
    char endpoint[1024];
    *h = NULL;
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        err_set(err, ST_USAGE, "'%.200s' is no URL of http or https", url);
        return err_hint(err, "--url https://...; a file that is here already is named by data_json");
    }
    host += 3;
    if ((size_t)snprintf(endpoint, sizeof endpoint, "%.*s", (int)(host - url + (long)strcspn(host, "/?#")),
                         url) >= sizeof endpoint)
        return err_set(err, ST_USAGE, "the host's name in '%.200s' is too long", url);
    /* No token: it is not the Hub that is asked. */
    return http_open(h, &(struct http_config){.endpoint = endpoint, .stoppable = true}, err);
}

static bool is_page(const char *path)
{
    char text[64] = "";
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    return text[strspn(text, " \t\r\n")] == '<';
}

/* The file; of a page that asks for a confirmation, what it leads to. */
static enum status from_url(const char *url, const char *path, struct err *err)
{
    struct buf next = BUF_INIT, page = BUF_INIT;
    struct http *h;
    TRY(open_client(&h, url, err));
    enum status st = hub_download_url(h, url, path, err);
    if (st == ST_OK && is_page(path)) {
        st = file_read(path, PAGE_BYTES, &page, err);
        unlink(path);
        if (st == ST_OK)
            st = confirmed_url(page.data ? page.data : "", &next, err);
        if (st == ST_OK)
            st = hub_download_url(h, next.data, path, err);
        if (st == ST_NET)
            err_hint(err,
                     "is the file shared with everybody who has the link? or fetch it by hand to data_json");
    }
    buf_release(&next);
    buf_release(&page);
    http_close(h);
    return st;
}

static enum status from_drive(const char *id, const char *path, struct err *err)
{
    const char *endpoint = getenv("SMGPT_DRIVE_ENDPOINT");
    struct buf url = BUF_INIT;
    enum status st =
        buf_printf(&url, err, "%s/uc?export=download&id=", endpoint && *endpoint ? endpoint : DRIVE);
    if (st == ST_OK)
        st = url_encode(&url, id, false, err);
    if (st == ST_OK)
        st = from_url(url.data, path, err);
    buf_release(&url);
    return st;
}

/* It is read as training reads it. */
static enum status check(const char *path, struct err *err)
{
    struct examples *examples = NULL;
    if (is_page(path)) {
        err_set(err, ST_INPUT, "a web page came instead of the data set");
        return err_hint(
            err, "is the file there, shared with everybody who has the link, and not asked for too often?");
    }
    TRY(examples_open(&examples, path, err));
    log_info("data    %lld rows came", (long long)examples_count(examples));
    examples_close(examples);
    return ST_OK;
}

enum status fetch_data(const struct options *o, const char *url, struct err *err)
{
    char part[PATH_BYTES], dir[PATH_BYTES];
    if (!url && !o->gdrive_id[0]) {
        err_set(err, ST_USAGE, "no place to fetch the data set from");
        return err_hint(err, "set gdrive_id, or give --url");
    }
    if (snprintf(part, sizeof part, "%s.part", o->data_json) >= (int)sizeof part)
        return err_set(err, ST_USAGE, "the path data_json is too long");
    snprintf(dir, sizeof dir, "%s", o->data_json);
    TRY(dir_make(dirname(dir), err));
    log_info("data    fetching %s", o->data_json);
    TRY(url ? from_url(url, part, err) : from_drive(o->gdrive_id, part, err));
    enum status st = check(part, err);
    if (st != ST_OK) {
        unlink(part);
        return err_where(err, "%s", o->data_json);
    }
    if (rename(part, o->data_json) != 0)
        return err_errno(err, ST_ENV, "cannot rename '%s'", part);
    return ST_OK;
}
