/* Preloaded into a process: kill -9 just before the n-th call of one kind. Any program, nothing of it is changed.
 *
 *     gcc -shared -fPIC -O2 -o kill_at.so kill_at.c -ldl
 *     KILL_COUNTS=counts KILL_KIND=1 KILL_AT=7 LD_PRELOAD=./kill_at.so program
 *
 * Kinds: 0 write, 1 sync, 2 rename and unlink. KILL_COUNTS is a file of three 64 bit numbers, shared by all processes of
 * the program, in which the calls are counted; without KILL_AT they are only counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long *counts;
static long kind = -1, at;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("KILL_COUNTS"), *of = getenv("KILL_KIND"), *number = getenv("KILL_AT");
    int file = path ? open(path, O_RDWR) : -1;
    if (file < 0) return;
    void *shared = mmap(0, 3 * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    kind = of ? atol(of) : -1, at = number ? atol(number) : 0;
    counts = shared;
}

static void passing(int which) {
    if (counts && atomic_fetch_add(&counts[which], 1) + 1 == at && which == kind) kill(getpid(), SIGKILL);
}

#define CALL(which, type, name, parameters, ...)                                                                       \
    type name parameters {                                                                                             \
        static type(*real) parameters;                                                                                 \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                 \
        passing(which);                                                                                                \
        return real(__VA_ARGS__);                                                                                      \
    }

CALL(0, ssize_t, writev, (int f, const struct iovec *v, int n), f, v, n)
CALL(0, ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), f, b, n, o)
CALL(0, ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), f, b, n, o)
CALL(1, int, fsync, (int f), f)
CALL(1, int, fdatasync, (int f), f)
CALL(2, int, rename, (const char *a, const char *b), a, b)
CALL(2, int, renameat, (int d, const char *a, int e, const char *b), d, a, e, b)
CALL(2, int, unlink, (const char *a), a)
CALL(2, int, unlinkat, (int d, const char *a, int flags), d, a, flags)
CALL(2, int, link, (const char *a, const char *b), a, b)
CALL(2, int, linkat, (int d, const char *a, int e, const char *b, int flags), d, a, e, b, flags)

ssize_t write(int f, const void *b, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (f > 2) passing(0);
    return real(f, b, n);
}
