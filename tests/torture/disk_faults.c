/* Preloaded into a process, it makes one call on files below a folder fail, or all calls from one on.
 * Nothing fails before disk_faults_arm() and after disk_faults_disarm(). Linux with glibc; one thread at a time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NO_SPACE, BROKEN_WRITE, SHORT_WRITE, BROKEN_READ };        /* kinds of fault */
enum { GROWS = 1, CHANGES = 2, WRITES = 4, READS = 8 };           /* what a call does */
static const int fails[] = {GROWS, GROWS | CHANGES, WRITES, READS}; /* which calls a kind of fault may befall */

static char folder[PATH_MAX];
static long target, counted;
static int kind, sticky, armed;

void disk_faults_arm(const char *below, int which, long number, int all_after) {
    snprintf(folder, sizeof folder, "%s/", below);
    kind = which, target = number, sticky = all_after, counted = 0, armed = 1;
}

long disk_faults_disarm(void) {
    armed = 0;
    return counted;
}

static int is_below(const char *path) { return !strncmp(path, folder, strlen(folder)); }

static int handle_is_below(int handle) {
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int path_is_below(int at, const char *path) {
    if (path[0] == '/') return is_below(path);
    if (at != AT_FDCWD) {
        char link[32], whole[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, sizeof whole - 2);
        if (length < 0) return 0;
        whole[length] = '/', whole[length + 1] = 0;
        return is_below(whole);
    }
    char here[PATH_MAX];
    return getcwd(here, sizeof here - 1) && is_below(strcat(here, "/"));
}

static int is_due(int does) {
    if (!(fails[kind] & does)) return 0;
    counted++;
    return counted == target || (sticky && counted > target);
}

static int error_of_kind(void) { return kind == NO_SPACE ? ENOSPC : EIO; }

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL_IF(place, does) \
    if (armed) { \
        int saved = errno; \
        if ((place) && is_due(does)) { errno = error_of_kind(); return -1; } \
        errno = saved; \
    }
#define SHORTEN(place, length) \
    if (armed && kind == SHORT_WRITE && (place) && is_due(WRITES) && (length) > 1) (length) /= 2

static int made_by(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; }
#define MODE(flags) \
    va_list more; \
    va_start(more, flags); \
    int mode = made_by(flags, more); \
    va_end(more)
#define DOES(flags) ((flags) & O_CREAT ? GROWS : (flags) & (O_WRONLY | O_RDWR) ? CHANGES : READS)

int open(const char *path, int flags, ...) {
    NEXT(open);
    MODE(flags);
    FAIL_IF(path_is_below(AT_FDCWD, path), DOES(flags));
    return next(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    NEXT(open64);
    MODE(flags);
    FAIL_IF(path_is_below(AT_FDCWD, path), DOES(flags));
    return next(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    NEXT(openat);
    MODE(flags);
    FAIL_IF(path_is_below(at, path), DOES(flags));
    return next(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    NEXT(openat64);
    MODE(flags);
    FAIL_IF(path_is_below(at, path), DOES(flags));
    return next(at, path, flags, mode);
}

#define WRITING(result, name, length, parameters, arguments) \
    result name parameters { \
        NEXT(name); \
        FAIL_IF(handle_is_below(handle), GROWS); \
        SHORTEN(handle_is_below(handle), length); \
        return next arguments; \
    }
WRITING(ssize_t, write, length, (int handle, const void *data, size_t length), (handle, data, length))
WRITING(ssize_t, pwrite, length, (int handle, const void *data, size_t length, off_t place), (handle, data, length, place))
WRITING(ssize_t, pwrite64, length, (int handle, const void *data, size_t length, off64_t place), (handle, data, length, place))
WRITING(ssize_t, writev, parts, (int handle, const struct iovec *vector, int parts), (handle, vector, parts))

#define ON_HANDLE(result, name, does, parameters, arguments) \
    result name parameters { \
        NEXT(name); \
        FAIL_IF(handle_is_below(handle), does); \
        return next arguments; \
    }
ON_HANDLE(ssize_t, read, READS, (int handle, void *data, size_t length), (handle, data, length))
ON_HANDLE(ssize_t, pread, READS, (int handle, void *data, size_t length, off_t place), (handle, data, length, place))
ON_HANDLE(ssize_t, pread64, READS, (int handle, void *data, size_t length, off64_t place), (handle, data, length, place))
ON_HANDLE(int, ftruncate, CHANGES, (int handle, off_t length), (handle, length))
ON_HANDLE(int, ftruncate64, CHANGES, (int handle, off64_t length), (handle, length))
ON_HANDLE(int, fallocate, GROWS, (int handle, int mode, off_t place, off_t length), (handle, mode, place, length))
ON_HANDLE(int, fallocate64, GROWS, (int handle, int mode, off64_t place, off64_t length), (handle, mode, place, length))
ON_HANDLE(int, fsync, CHANGES, (int handle), (handle))
ON_HANDLE(int, fdatasync, CHANGES, (int handle), (handle))
ON_HANDLE(int, fchmod, CHANGES, (int handle, mode_t mode), (handle, mode))

#define ON_PATH(name, does, at, path, parameters, arguments) \
    int name parameters { \
        NEXT(name); \
        FAIL_IF(path_is_below(at, path), does); \
        return next arguments; \
    }
ON_PATH(unlink, CHANGES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(unlinkat, CHANGES, at, path, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(rmdir, CHANGES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(mkdir, GROWS, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, GROWS, at, path, (int at, const char *path, mode_t mode), (at, path, mode))
ON_PATH(symlink, GROWS, AT_FDCWD, path, (const char *from, const char *path), (from, path))
ON_PATH(symlinkat, GROWS, at, path, (const char *from, int at, const char *path), (from, at, path))
ON_PATH(link, GROWS, AT_FDCWD, path, (const char *from, const char *path), (from, path))
ON_PATH(linkat, GROWS, at, path, (int from_at, const char *from, int at, const char *path, int flags), (from_at, from, at, path, flags))
ON_PATH(rename, GROWS, AT_FDCWD, path, (const char *from, const char *path), (from, path))
ON_PATH(renameat, GROWS, at, path, (int from_at, const char *from, int at, const char *path), (from_at, from, at, path))
