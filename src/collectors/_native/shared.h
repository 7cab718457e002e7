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

/* Whether a word of text needs a look: a quote, a backslash or a control character is in it. Bytes that are zero, or below 32:
   https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord, #HasLessInWord */
static inline int needs_look(uint64_t word) {
    const uint64_t ones = ~(uint64_t)0 / 255, highs = ones << 7;
    uint64_t quote = word ^ (ones * '"'), slash = word ^ (ones * '\\');
    return ((((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((word - ones * 32) & ~word)) & highs) != 0;
}

/* Returns where text needs a look, or its end. */
static inline const char *plain(const char *p, const char *end) {
    uint64_t word;
    for (; end - p >= 8; p += 8) {
        memcpy(&word, p, 8);
        if (needs_look(word)) break;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 32) p++;
    return p;
}

/* The same, and copies what is before. */
static inline const char *plain_copied(char *to, const char *p, const char *end) {
    uint64_t word;
    for (; end - p >= 8; p += 8, to += 8) {
        memcpy(&word, p, 8);
        if (needs_look(word)) break;
        memcpy(to, &word, 8);
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 32) *to++ = *p++;
    return p;
}
