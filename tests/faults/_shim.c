/* Preloaded into a process of the fault tests: faults in, and a journal of, what it does to the files of one folder.
 *
 *     gcc -shared -fPIC -O2 -o shim.so _shim.c -ldl -lpthread
 *
 * A "point" is a call of one of the kinds below that changes, or makes durable, something under the folder given to
 * shim_arm. At the points numbered `from` to `to` the process is killed or stopped by a signal, or the call fails with
 * an errno, or writes half of what it should. With a journal, each call that succeeded is written down behind it, with
 * its data, in the order in which the calls took effect: calls under the folder are made one at a time.
 *
 * What changes files through mmap is not seen. Of the programs under test that is SQLite's -shm file alone, which does
 * not outlive a power cut.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC = 2, NAME = 4, SIZE = 8, MAKE = 16 };
enum mode { COUNT = 0, SIGNAL = 1, ERRNO = 2, SHORT = 3 };
enum record { R_WRITE = 1, R_SYNC, R_RENAME, R_LINK, R_UNLINK, R_TRUNCATE, R_CREATE, R_MKDIR, R_RMDIR, R_MARK };

struct head {
    uint32_t record, path, path2, data;
    uint64_t inode;
    int64_t offset;
};

#define FILES 65536
static char ours[FILES];
static char root[PATH_MAX];
static size_t root_length;
static int kinds, mode, value, journal = -1;
static long from, to, passed;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name)                                                                                                     \
    static __typeof__(&name) real_##name;                                                                              \
    if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Called by the tests. */

void shim_arm(const char *folder, int which, int how, long first, long last, int with, int journal_file) {
    pthread_mutex_lock(&turn);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    kinds = which, mode = how, from = first, to = last, value = with, journal = journal_file, passed = 0;
    pthread_mutex_unlock(&turn);
}

void shim_calm(void) {
    pthread_mutex_lock(&turn);
    mode = COUNT;
    pthread_mutex_unlock(&turn);
}

long shim_passed(void) { return passed; }

static void put(const void *from_, size_t size) {
    const char *at = from_;
    while (size) {
        ssize_t done = syscall(SYS_write, journal, at, size);
        if (done < 0) abort();
        at += done, size -= (size_t)done;
    }
}

static void note(int record, const char *path, const char *path2, uint64_t inode, int64_t offset, const void *data,
                 size_t size) {
    if (journal < 0) return;
    int saved = errno;
    struct head head = {record, path ? strlen(path) : 0, path2 ? strlen(path2) : 0, size, inode, offset};
    put(&head, sizeof head);
    put(path, head.path), put(path2, head.path2), put(data, size);
    errno = saved;
}

void shim_mark(const void *data, size_t size) {
    pthread_mutex_lock(&turn);
    note(R_MARK, NULL, NULL, 0, 0, data, size);
    pthread_mutex_unlock(&turn);
}

/* What is ours, and what happens at a point. */

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* Write the absolute path into `out` and return whether it is ours. */
static int absolute(int folder, const char *path, char *out) {
    if (!root_length) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX / 2], link[64];
        ssize_t size;
        if (folder == AT_FDCWD)
            size = getcwd(base, sizeof base) ? (ssize_t)strlen(base) : -1;
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder), size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
        snprintf(out, PATH_MAX, "%s/%s", base, path);
    }
    return below(out);
}

static int is_ours(int file) { return root_length && file >= 0 && file < FILES && ours[file]; }

/* Count a point; return 0 to go on, -1 to fail with errno, 1 to do half of it. */
static int point(int kind) {
    if (!(kind & kinds)) return 0;
    long number = ++passed;
    if (mode == COUNT || number < from || number > to) return 0;
    if (mode == SIGNAL) {
        kill(getpid(), value);
        return 0;
    }
    if (mode == SHORT) return kind == WRITE;
    errno = value;
    return -1;
}

static uint64_t inode_of(int file) {
    struct stat found;
    return fstat(file, &found) ? 0 : found.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

#define OURS(file, call)                                                                                               \
    if (!is_ours(file)) return call;                                                                                   \
    pthread_mutex_lock(&turn)
#define DONE(result)                                                                                                   \
    pthread_mutex_unlock(&turn);                                                                                       \
    return result

/* Writing. */

static ssize_t written(int file, const struct iovec *parts, int count, off_t offset, ssize_t done) {
    if (done <= 0 || journal < 0) return done;
    char *data = malloc((size_t)done), *at = data;
    for (size_t left = (size_t)done; count-- && left; parts++) {
        size_t size = parts->iov_len < left ? parts->iov_len : left;
        memcpy(at, parts->iov_base, size), at += size, left -= size;
    }
    note(R_WRITE, NULL, NULL, inode_of(file), offset, data, (size_t)done);
    free(data);
    return done;
}

/* Where a write without an offset ends up: told after it, since a file may be open for appending. */
static off_t before(int file, ssize_t done) { return done > 0 ? lseek(file, 0, SEEK_CUR) - done : 0; }

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    OURS(file, real_write(file, data, size));
    int what = point(WRITE);
    ssize_t done = what < 0 ? -1 : real_write(file, data, what && size > 1 ? size / 2 : size);
    struct iovec part = {(void *)data, size};
    written(file, &part, 1, before(file, done), done);
    DONE(done);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    OURS(file, real_writev(file, parts, count));
    int what = point(WRITE);
    ssize_t done;
    if (what > 0) {
        REAL(write);
        done = real_write(file, parts[0].iov_base, parts[0].iov_len > 1 ? parts[0].iov_len / 2 : parts[0].iov_len);
    } else {
        done = what < 0 ? -1 : real_writev(file, parts, count);
    }
    written(file, parts, count, before(file, done), done);
    DONE(done);
}

#define PWRITE(name, offset_type)                                                                                      \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) {                                        \
        REAL(name);                                                                                                    \
        OURS(file, real_##name(file, data, size, offset));                                                             \
        int what = point(WRITE);                                                                                       \
        ssize_t done = what < 0 ? -1 : real_##name(file, data, what && size > 1 ? size / 2 : size, offset);            \
        struct iovec part = {(void *)data, size};                                                                      \
        written(file, &part, 1, offset, done);                                                                         \
        DONE(done);                                                                                                    \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(name, offset_type)                                                                                     \
    ssize_t name(int file, const struct iovec *parts, int count, offset_type offset) {                                 \
        REAL(name);                                                                                                    \
        OURS(file, real_##name(file, parts, count, offset));                                                           \
        int what = point(WRITE);                                                                                       \
        ssize_t done = what < 0 ? -1 : real_##name(file, parts, what && count > 1 ? count / 2 : count, offset);        \
        written(file, parts, count, offset, done);                                                                     \
        DONE(done);                                                                                                    \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

/* Making durable. */

#define FSYNC(name)                                                                                                    \
    int name(int file) {                                                                                               \
        REAL(name);                                                                                                    \
        OURS(file, real_##name(file));                                                                                 \
        int done = point(SYNC) < 0 ? -1 : real_##name(file);                                                           \
        if (!done) note(R_SYNC, NULL, NULL, inode_of(file), 0, NULL, 0);                                               \
        DONE(done);                                                                                                    \
    }
FSYNC(fsync)
FSYNC(fdatasync)

/* Lengths. */

#define TRUNCATE(name, offset_type)                                                                                    \
    int name(int file, offset_type size) {                                                                             \
        REAL(name);                                                                                                    \
        OURS(file, real_##name(file, size));                                                                           \
        int done = point(SIZE) < 0 ? -1 : real_##name(file, size);                                                     \
        if (!done) note(R_TRUNCATE, NULL, NULL, inode_of(file), size, NULL, 0);                                        \
        DONE(done);                                                                                                    \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(name, offset_type, result)                                                                            \
    {                                                                                                                  \
        OURS(file, result);                                                                                            \
        int done = point(SIZE) < 0 ? -1 : 0;                                                                           \
        if (!done) done = result;                                                                                      \
        struct stat found;                                                                                             \
        if (!done && !fstat(file, &found)) note(R_TRUNCATE, NULL, NULL, found.st_ino, found.st_size, NULL, 0);         \
        DONE(done);                                                                                                    \
    }
int fallocate(int file, int how, off_t offset, off_t size) {
    REAL(fallocate);
    ALLOCATE(fallocate, off_t, real_fallocate(file, how, offset, size))
}
int fallocate64(int file, int how, off64_t offset, off64_t size) {
    REAL(fallocate64);
    ALLOCATE(fallocate64, off64_t, real_fallocate64(file, how, offset, size))
}
static int allocate(int file, off_t offset, off_t size) {
    REAL(posix_fallocate);
    ALLOCATE(posix_fallocate, off_t, real_posix_fallocate(file, offset, size))
}
int posix_fallocate(int file, off_t offset, off_t size) {
    int done = allocate(file, offset, size);
    return done < 0 ? errno : done;
}
int posix_fallocate64(int file, off64_t offset, off64_t size) { return posix_fallocate(file, offset, size); }

/* Names. */

static int change(int record, int folder, const char *path, int folder2, const char *path2, int (*call)(void *),
                  void *with) {
    char first[PATH_MAX] = "", second[PATH_MAX] = "";
    int found = absolute(folder, path, first);
    if (path2) found |= absolute(folder2, path2, second);
    if (!found) return call(with);
    pthread_mutex_lock(&turn);
    int done = point(NAME) < 0 ? -1 : call(with);
    if (!done) note(record, first, path2 ? second : NULL, inode_at(path2 ? second : first), 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}

struct names {
    int folder, folder2, flags;
    const char *path, *path2;
};

static int do_renameat2(void *with) {
    struct names *names = with;
    return (int)syscall(SYS_renameat2, names->folder, names->path, names->folder2, names->path2, names->flags);
}
static int do_linkat(void *with) {
    struct names *names = with;
    return (int)syscall(SYS_linkat, names->folder, names->path, names->folder2, names->path2, names->flags);
}
static int do_unlinkat(void *with) {
    struct names *names = with;
    return (int)syscall(SYS_unlinkat, names->folder, names->path, names->flags);
}
static int do_mkdirat(void *with) {
    struct names *names = with;
    return (int)syscall(SYS_mkdirat, names->folder, names->path, names->flags);
}

int renameat2(int folder, const char *path, int folder2, const char *path2, unsigned int flags) {
    struct names names = {folder, folder2, (int)flags, path, path2};
    return change(R_RENAME, folder, path, folder2, path2, do_renameat2, &names);
}
int renameat(int folder, const char *path, int folder2, const char *path2) {
    return renameat2(folder, path, folder2, path2, 0);
}
int rename(const char *path, const char *path2) { return renameat2(AT_FDCWD, path, AT_FDCWD, path2, 0); }
int linkat(int folder, const char *path, int folder2, const char *path2, int flags) {
    struct names names = {folder, folder2, flags, path, path2};
    return change(R_LINK, folder, path, folder2, path2, do_linkat, &names);
}
int link(const char *path, const char *path2) { return linkat(AT_FDCWD, path, AT_FDCWD, path2, 0); }
int unlinkat(int folder, const char *path, int flags) {
    struct names names = {folder, folder, flags, path, NULL};
    return change(flags & AT_REMOVEDIR ? R_RMDIR : R_UNLINK, folder, path, folder, NULL, do_unlinkat, &names);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int done = unlink(path);
    return done && errno == EISDIR ? rmdir(path) : done;
}
int mkdirat(int folder, const char *path, mode_t rights) {
    struct names names = {folder, folder, (int)rights, path, NULL};
    return change(R_MKDIR, folder, path, folder, NULL, do_mkdirat, &names);
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }

/* Opening and closing: which descriptors are ours. */

static int opened(int folder, const char *path, int flags, mode_t rights) {
    char full[PATH_MAX];
    if (!absolute(folder, path, full)) return (int)syscall(SYS_openat, folder, path, flags, rights);
    pthread_mutex_lock(&turn);
    uint64_t there = inode_at(full);
    int changes = ((flags & O_CREAT) && !there) || ((flags & O_TRUNC) && there);
    int file = changes && point(MAKE) < 0 ? -1 : (int)syscall(SYS_openat, folder, path, flags, rights);
    if (file >= 0 && file < FILES) ours[file] = 1;
    if (file >= 0 && changes) {
        if (there)
            note(R_TRUNCATE, NULL, NULL, inode_of(file), 0, NULL, 0);
        else
            note(R_CREATE, full, NULL, inode_of(file), 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    return file;
}

#define RIGHTS                                                                                                         \
    mode_t rights = 0;                                                                                                 \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        rights = va_arg(rest, mode_t);                                                                                 \
        va_end(rest);                                                                                                  \
    }
int open(const char *path, int flags, ...) {
    RIGHTS return opened(AT_FDCWD, path, flags, rights);
}
int open64(const char *path, int flags, ...) {
    RIGHTS return opened(AT_FDCWD, path, flags | O_LARGEFILE, rights);
}
int openat(int folder, const char *path, int flags, ...) {
    RIGHTS return opened(folder, path, flags, rights);
}
int openat64(int folder, const char *path, int flags, ...) {
    RIGHTS return opened(folder, path, flags | O_LARGEFILE, rights);
}
int creat(const char *path, mode_t rights) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, rights); }
int creat64(const char *path, mode_t rights) { return creat(path, rights); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags | O_LARGEFILE, 0); }
int __openat_2(int folder, const char *path, int flags) { return opened(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return opened(folder, path, flags | O_LARGEFILE, 0); }

int close(int file) {
    REAL(close);
    if (file >= 0 && file < FILES) ours[file] = 0;
    return real_close(file);
}
