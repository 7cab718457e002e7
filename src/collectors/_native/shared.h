/* What several files of compiled code need. */

#include <stdint.h>
#include <string.h>

/* A column as Arrow hands it over: https://arrow.apache.org/docs/format/CDataInterface.html */
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* Returns where text needs a look: a quote, a backslash, a control character, or its end. */
static inline const char *plain(const char *p, const char *end) {
    const uint64_t ones = ~(uint64_t)0 / 255, highs = ones << 7;
    while (end - p >= 8) {
        uint64_t word, quote, slash;
        memcpy(&word, p, 8);
        quote = word ^ (ones * '"');
        slash = word ^ (ones * '\\');
        /* A byte is zero, or below 32: https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord, #HasLessInWord */
        if ((((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((word - ones * 32) & ~word)) & highs) break;
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 32) p++;
    return p;
}
