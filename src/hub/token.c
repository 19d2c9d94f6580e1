/* The Hub's token: looked up once, then removed from where it came from. */
#include "hub/token.h"
#include "util/file.h"
#include "util/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const variables[] = {"HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
#define N_VARIABLES (sizeof variables / sizeof *variables)

/* A variable that is set to nothing counts as not set, as in huggingface_hub. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *name)
{
    static const char *const words[] = {"1", "ON", "YES", "TRUE"};
    const char *value = variable(name);
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0)
            return true;
    return false;
}

bool hub_is_offline(void)
{
    return is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
}

bool hub_without_links(void)
{
    return is_true("HF_HUB_DISABLE_SYMLINKS");
}

enum status hub_home(char path[], struct err *err)
{
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME"), *user = variable("HOME");
    char dot_cache[PATH_BYTES];
    if (home)
        return path_join(path, home, "", err);
    if (cache)
        return path_join(path, cache, "huggingface", err);
    if (!user) {
        err_set(err, ST_ENV, "no place for files of the Hub: neither HF_HOME nor HOME is set");
        return err_hint(err, "set HF_HOME to a directory");
    }
    TRY(path_join(dot_cache, user, ".cache", err));
    return path_join(path, dot_cache, "huggingface", err);
}

/* Blanks and line ends around it are dropped; inside only what a header may carry. */
static enum status set(struct hub_token *token, const char *text, size_t n, const char *source,
                       struct err *err)
{
    while (n > 0 && isspace((unsigned char)text[0]))
        text++, n--;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    if (n == 0)
        return ST_OK;
    bool good = n < TOKEN_BYTES;
    for (size_t i = 0; good && i < n; i++)
        good = text[i] > 0x20 && text[i] < 0x7f;
    if (!good) {
        err_set(err, ST_INPUT, "what %s holds is no token of the Hub", source);
        return err_hint(err, "a token is one word of letters, digits and underscores: hf_...");
    }
    memcpy(token->text, text, n);
    token->text[n] = 0;
    snprintf(token->source, sizeof token->source, "%s", source);
    return ST_OK;
}

static enum status read_file(struct hub_token *token, struct err *err)
{
    char path[PATH_BYTES], home[PATH_BYTES], text[4096];
    const char *given = variable("HF_TOKEN_PATH");
    struct stat info;
    if (given) {
        TRY(path_join(path, given, "", err));
    } else {
        if (hub_home(home, NULL) != ST_OK)
            return ST_OK; /* nowhere to look */
        TRY(path_join(path, home, "token", err));
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return ST_OK;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (n < 0)
        err_errno(err, ST_INPUT, "the token file %s", path);
    if (n >= 0 && fstat(fd, &info) == 0 && (info.st_mode & (S_IRGRP | S_IROTH)))
        log_warn("the token file %s can be read by others: chmod 600 it", path);
    if (fd >= 0)
        close(fd);
    enum status st = n < 0 ? ST_INPUT : set(token, text, (size_t)n, "the token file", err);
    explicit_bzero(text, sizeof text);
    return st;
}

/* The kernel gives the bytes of the first environment to whoever may read /proc/<pid>/environ, and a core
 * file holds them: they are overwritten where they lie. */
static void scrub_environment(void)
{
    for (size_t i = 0; i < N_VARIABLES; i++) {
        char *value = getenv(variables[i]);
        if (value) {
            explicit_bzero(value, strlen(value));
            unsetenv(variables[i]);
        }
    }
}

/* Copies of the token lie in memory of the HTTP and TLS libraries. The filter leaves all private memory out
 * of a core file, also of one that is piped to a handler, where RLIMIT_CORE does not count; debuggers and
 * MPI's copies between processes are not touched by it. */
static void leave_out_of_cores(void)
{
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "0", 1) == 1;
    if (fd >= 0)
        close(fd);
    if (!done)
        log_debug("core files of this process may hold the token of the Hub: %s", strerror(errno));
}

enum status hub_token_take(struct hub_token *token, struct err *err)
{
    enum status st = ST_OK;
    memset(token, 0, sizeof *token);
    for (size_t i = 0; i < N_VARIABLES && st == ST_OK && !token->text[0]; i++) {
        const char *value = variable(variables[i]);
        if (value)
            st = set(token, value, strlen(value), variables[i], err);
    }
    scrub_environment();
    if (st == ST_OK && !token->text[0])
        st = read_file(token, err);
    if (token->text[0])
        leave_out_of_cores();
    return st;
}

void hub_token_forget(struct hub_token *token)
{
    explicit_bzero(token, sizeof *token);
}
