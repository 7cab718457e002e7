/* Lines of JSON into Arrow arrays, for columns that are known: one pass, no objects in between.

   It takes a text only when every line is beyond doubt, and says no otherwise: an unknown or a repeated key, a value of
   another type, a number that the column would not hold exactly, anything that is not JSON. The caller then reads the
   text in the slower way, which finds out what is wrong. So there is no error to report from here.

   Called through ctypes, without the interpreter's lock: nothing here knows Python. The text is that of a `bytes` object:
   UTF-8, checked by the caller, and followed by a NUL, which no grammar accepts; that is what ends every loop. The
   result is handed over by Arrow's C data interface (https://arrow.apache.org/docs/format/CDataInterface.html). */

#define _GNU_SOURCE
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#include "../../_native/shared.h"

enum { NOTHING, BOOL, INT, FLOAT, STRING, STRUCT, LIST };

typedef struct {
    uint8_t *bytes;
    int64_t used, room;
} Buffer;

typedef struct Node {
    int kind;
    const char *name; /* in the plan */
    int64_t name_length;
    int64_t n_children;
    struct Node *children;
    int64_t length, nulls;
    Buffer valid;   /* a bit a value */
    Buffer data;    /* values, bits of bools, or text */
    Buffer offsets; /* int32, one more than values */
} Node;

typedef struct {
    const char *end;
    locale_t locale; /* in which a point is a point */
} Reader;

/* How much of the text there is, and was read before this record: what a buffer needs in the end follows from that. To
   double it again and again would leave the heap in pieces. Within a large record `used` is far ahead of that, so what
   follows is bounded by what a text can need at most: that is a list of `1,`, of eight bytes each. */
static _Thread_local int64_t text_bytes, text_read;

enum { MOST_FOR_A_BYTE = 4 };

static int64_t room_for(int64_t used, int64_t bytes) {
    int64_t least = used + bytes + 1024;
    if (text_read < 64 * 1024) return 2 * least;
    double whole = 1.05 * (double)used * ((double)text_bytes / (double)text_read);
    double most = (double)MOST_FOR_A_BYTE * (double)text_bytes;
    if (whole > most) whole = most;
    return (int64_t)whole > least ? (int64_t)whole + 1024 : least + least / 8;
}

/* Returns room for so many more bytes, NULL when there is no memory. A little more than asked is always there, since readers
   of Arrow may look at whole words. */
static uint8_t *more(Buffer *buffer, int64_t bytes) {
    if (buffer->used + bytes + 64 > buffer->room) {
        int64_t room = room_for(buffer->used, bytes);
        uint8_t *larger = realloc(buffer->bytes, (size_t)room);
        if (larger == NULL) return NULL;
        buffer->bytes = larger;
        buffer->room = room;
    }
    return buffer->bytes + buffer->used;
}

static int add_bit(Buffer *buffer, int64_t place, int bit) {
    if ((place & 7) == 0) {
        uint8_t *at = more(buffer, 1);
        if (at == NULL) return 0;
        *at = 0;
        buffer->used++;
    }
    buffer->bytes[place >> 3] |= (uint8_t)(bit << (place & 7));
    return 1;
}

static int add_word(Buffer *buffer, const void *word, int64_t size) {
    uint8_t *at = more(buffer, size);
    if (at == NULL) return 0;
    memcpy(at, word, (size_t)size);
    buffer->used += size;
    return 1;
}

static int add_offset(Buffer *offsets, int64_t value) {
    int32_t offset = (int32_t)value; /* texts are shorter than 2 GiB, and what comes out is not longer */
    return add_word(offsets, &offset, sizeof offset);
}

/* Ends a value: counts it, and says whether it is one or a null. */
static int close_value(Node *node, int is_value) {
    if (node->kind != NOTHING && !add_bit(&node->valid, node->length, is_value)) return 0;
    node->length++;
    node->nulls += !is_value;
    return 1;
}

static int add_null(Node *node) {
    static const int64_t zero = 0;
    switch (node->kind) {
    case BOOL:
        if (!add_bit(&node->data, node->length, 0)) return 0;
        break;
    case INT:
    case FLOAT:
        if (!add_word(&node->data, &zero, sizeof zero)) return 0;
        break;
    case STRING:
        if (!add_offset(&node->offsets, node->data.used)) return 0;
        break;
    case LIST:
        if (!add_offset(&node->offsets, node->children[0].length)) return 0;
        break;
    case STRUCT:
        for (int64_t i = 0; i < node->n_children; i++)
            if (!add_null(&node->children[i])) return 0;
        break;
    default:
        break;
    }
    return close_value(node, 0);
}

/* White space within a line. */
static const char *skip(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\r') p++;
    return p;
}

static int hex4(const char *p, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t digit;
        if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A' + 10);
        else return 0;
        *code = *code << 4 | digit;
    }
    return 1;
}

/* Appends what an escape stands for; `p` is behind the backslash. Returns what is behind the escape. */
static const char *unescape(const char *p, Buffer *text) {
    uint8_t *to = more(text, 4);
    uint32_t code, low;
    if (to == NULL) return NULL;
    switch (*p++) {
    case '"': *to = '"'; break;
    case '\\': *to = '\\'; break;
    case '/': *to = '/'; break;
    case 'b': *to = '\b'; break;
    case 'f': *to = '\f'; break;
    case 'n': *to = '\n'; break;
    case 'r': *to = '\r'; break;
    case 't': *to = '\t'; break;
    case 'u':
        if (!hex4(p, &code)) return NULL;
        p += 4;
        if (code >= 0xD800 && code < 0xE000) { /* two halves make a character; a half alone is none */
            if (code >= 0xDC00 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, &low)) return NULL;
            if (low < 0xDC00 || low >= 0xE000) return NULL;
            p += 6;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        if (code < 0x80) {
            *to = (uint8_t)code;
        } else if (code < 0x800) {
            *to++ = (uint8_t)(0xC0 | code >> 6);
            *to = (uint8_t)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            *to++ = (uint8_t)(0xE0 | code >> 12);
            *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
            *to = (uint8_t)(0x80 | (code & 63));
        } else {
            *to++ = (uint8_t)(0xF0 | code >> 18);
            *to++ = (uint8_t)(0x80 | (code >> 12 & 63));
            *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
            *to = (uint8_t)(0x80 | (code & 63));
        }
        break;
    default: return NULL;
    }
    text->used = to + 1 - text->bytes;
    return p;
}

/* `p` is behind the quote. */
static const char *string(Reader *reader, Node *node, const char *p) {
    Buffer *text = &node->data;
    for (;;) {
        const char *stop = plain(p, reader->end);
        uint8_t *to = more(text, stop - p);
        if (to == NULL) return NULL;
        memcpy(to, p, (size_t)(stop - p));
        text->used += stop - p;
        if (*stop == '"') {
            if (!add_offset(&node->offsets, text->used) || !close_value(node, 1)) return NULL;
            return stop + 1;
        }
        if (*stop != '\\' || (p = unescape(stop + 1, text)) == NULL) return NULL;
    }
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static const char *number(Reader *reader, Node *node, const char *p) {
    const char *begin = p;
    uint64_t digits = 0;
    int count = 0, power = 0, is_integer = 1, negative = *p == '-';
    double value;
    p += negative;
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1]))) return NULL;
    for (; is_digit(*p); p++, count++) digits = 10 * digits + (uint64_t)(*p - '0');
    if (*p == '.') {
        is_integer = 0;
        if (!is_digit(*++p)) return NULL;
        for (; is_digit(*p); p++, count++) {
            digits = 10 * digits + (uint64_t)(*p - '0');
            if (power > -100000) power--; /* so far down, the C library says what it is */
        }
    }
    if (*p == 'e' || *p == 'E') {
        int exponent = 0, below = 0;
        is_integer = 0;
        p++;
        if (*p == '+' || *p == '-') below = *p++ == '-';
        if (!is_digit(*p)) return NULL;
        for (; is_digit(*p); p++)
            if (exponent < 100000) exponent = 10 * exponent + (*p - '0');
        power += below ? -exponent : exponent;
    }
    if (node->kind == INT) {
        int64_t integer;
        if (!is_integer || count > 19 || digits > (uint64_t)INT64_MAX + (uint64_t)negative) return NULL;
        integer = negative ? (int64_t)(0 - digits) : (int64_t)digits;
        if (!add_word(&node->data, &integer, sizeof integer)) return NULL;
    } else {
        /* Digits and power of ten are both exact as floats, so one operation rounds once: W. Clinger, "How to Read
           Floating Point Numbers Accurately", 1990. */
        if (FLT_EVAL_METHOD == 0 && count <= 19 && digits <= (uint64_t)1 << 53 && power >= -22 && power <= 22) {
            value = power < 0 ? (double)digits / POWERS[-power] : (double)digits * POWERS[power];
            value = negative ? -value : value;
        } else {
            char *stop;
            if (is_integer) return NULL; /* perhaps one that a float does not hold */
            value = strtod_l(begin, &stop, reader->locale);
            if (stop != p || isinf(value) || value == 0) return NULL; /* others do not take every such nought */
        }
        if (!add_word(&node->data, &value, sizeof value)) return NULL;
    }
    return close_value(node, 1) ? p : NULL;
}

static const char *value(Reader *reader, Node *node, const char *p);

/* Returns the member of this name, NULL when there is none. `*p` moves behind the name's quote. */
static Node *member(Reader *reader, Node *node, int64_t expected, const char **p) {
    const char *begin = *p, *stop;
    if (expected < node->n_children) {
        Node *next = &node->children[expected];
        if (reader->end - begin > next->name_length && memcmp(begin, next->name, (size_t)next->name_length) == 0 &&
            begin[next->name_length] == '"') {
            *p = begin + next->name_length + 1;
            return next;
        }
    }
    stop = plain(begin, reader->end);
    if (*stop != '"') return NULL;
    *p = stop + 1;
    for (int64_t i = 0; i < node->n_children; i++) {
        Node *child = &node->children[i];
        if (child->name_length == stop - begin && memcmp(begin, child->name, (size_t)child->name_length) == 0) return child;
    }
    return NULL;
}

/* `p` is behind the brace. */
static const char *object(Reader *reader, Node *node, const char *p) {
    int64_t expected = 0;
    p = skip(p);
    if (*p == '}') {
        p++;
    } else {
        for (;;) {
            Node *child;
            if (*p++ != '"') return NULL;
            child = member(reader, node, expected, &p);
            if (child == NULL || child->length != node->length) return NULL; /* unknown, or there a second time */
            p = skip(p);
            if (*p++ != ':') return NULL;
            if ((p = value(reader, child, skip(p))) == NULL) return NULL;
            expected = child - node->children + 1;
            p = skip(p);
            if (*p == '}') break;
            if (*p++ != ',') return NULL;
            p = skip(p);
        }
        p++;
    }
    for (int64_t i = 0; i < node->n_children; i++)
        if (node->children[i].length == node->length && !add_null(&node->children[i])) return NULL;
    return close_value(node, 1) ? p : NULL;
}

/* `p` is behind the bracket. */
static const char *array(Reader *reader, Node *node, const char *p) {
    p = skip(p);
    if (*p == ']') {
        p++;
    } else {
        for (;;) {
            if ((p = value(reader, &node->children[0], p)) == NULL) return NULL;
            p = skip(p);
            if (*p == ']') break;
            if (*p++ != ',') return NULL;
            p = skip(p);
        }
        p++;
    }
    return add_offset(&node->offsets, node->children[0].length) && close_value(node, 1) ? p : NULL;
}

static const char *boolean(Node *node, const char *p) {
    int truth = strncmp(p, "true", 4) == 0;
    if (!truth && strncmp(p, "false", 5) != 0) return NULL;
    return add_bit(&node->data, node->length, truth) && close_value(node, 1) ? p + 5 - truth : NULL;
}

static const char *value(Reader *reader, Node *node, const char *p) {
    if (*p == 'n') return strncmp(p, "null", 4) == 0 && add_null(node) ? p + 4 : NULL;
    switch (node->kind) {
    case STRING: return *p == '"' ? string(reader, node, p + 1) : NULL;
    case INT:
    case FLOAT: return number(reader, node, p);
    case BOOL: return boolean(node, p);
    case STRUCT: return *p == '{' ? object(reader, node, p + 1) : NULL;
    case LIST: return *p == '[' ? array(reader, node, p + 1) : NULL;
    default: /* of a column that was null so far, an empty object is null too */
        if (*p != '{') return NULL;
        p = skip(p + 1);
        return *p == '}' && add_null(node) ? p + 1 : NULL;
    }
}

static int lines(Reader *reader, Node *root, const char *p) {
    const char *text = p;
    while (p < reader->end) {
        text_read = p - text;
        p = skip(p);
        if (*p == '{') {
            if ((p = object(reader, root, p + 1)) == NULL) return 0;
            p = skip(p);
        }
        if (p < reader->end && *p++ != '\n') return 0;
    }
    return 1;
}

/* Reads a column from the plan: kind, length of the name, name, number of children, children. */
static const char *open_node(Node *node, const char *plan) {
    int32_t numbers[2];
    node->kind = *plan++;
    memcpy(numbers, plan, sizeof numbers);
    plan += sizeof numbers;
    node->name = plan;
    node->name_length = numbers[0];
    plan += numbers[0];
    if ((node->kind == STRING || node->kind == LIST) && !add_offset(&node->offsets, 0)) return NULL;
    if (numbers[1] > 0) {
        node->children = calloc((size_t)numbers[1], sizeof *node->children);
        if (node->children == NULL) return NULL;
    }
    while (node->n_children < numbers[1]) {
        plan = open_node(&node->children[node->n_children++], plan);
        if (plan == NULL) return NULL;
    }
    return plan;
}

static void close_node(Node *node) {
    for (int64_t i = 0; i < node->n_children; i++) close_node(&node->children[i]);
    free(node->children);
    free(node->valid.bytes);
    free(node->data.bytes);
    free(node->offsets.bytes);
    memset(node, 0, sizeof *node);
}

static void release(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++) {
        struct ArrowArray *child = array->children[i];
        if (child == NULL) continue;
        if (child->release != NULL) child->release(child);
        free(child);
    }
    for (int64_t i = 0; array->buffers != NULL && i < array->n_buffers; i++) free((void *)array->buffers[i]);
    free(array->children);
    free(array->buffers);
    array->release = NULL;
}

static const void *taken(Buffer *buffer) {
    uint8_t *bytes = buffer->bytes, *smaller;
    if (bytes == NULL) bytes = calloc(1, 64);
    else if ((smaller = realloc(bytes, (size_t)buffer->used + 64)) != NULL) bytes = smaller;
    memset(buffer, 0, sizeof *buffer);
    return bytes;
}

/* Moves a column and what is below it into Arrow's form. */
static int hand_over(Node *node, struct ArrowArray *array) {
    int64_t n = 0;
    memset(array, 0, sizeof *array);
    array->length = node->length;
    array->null_count = node->kind == NOTHING ? node->length : node->nulls;
    array->release = release;
    array->buffers = calloc(3, sizeof *array->buffers);
    array->children = calloc((size_t)node->n_children + 1, sizeof *array->children);
    if (array->buffers == NULL || array->children == NULL) return 0;
    if (node->kind != NOTHING) {
        array->n_buffers = 1;
        if (node->nulls > 0) array->buffers[0] = taken(&node->valid);
        n = 1;
        if (node->kind == STRING || node->kind == LIST) array->buffers[n++] = taken(&node->offsets);
        if (node->kind != STRUCT && node->kind != LIST) array->buffers[n++] = taken(&node->data);
        array->n_buffers = n;
        for (int64_t i = 1; i < n; i++)
            if (array->buffers[i] == NULL) return 0;
    }
    array->n_children = node->n_children;
    for (int64_t i = 0; i < node->n_children; i++) {
        array->children[i] = calloc(1, sizeof **array->children);
        if (array->children[i] == NULL || !hand_over(&node->children[i], array->children[i])) return 0;
    }
    return 1;
}

/* Returns how many line feeds there are, or -1 minus that where a byte is not ASCII. */
int64_t collectors_count_lines_1(const char *text, int64_t length) {
    int64_t lines = 0;
    uint8_t all = 0;
    for (int64_t begin = 0; begin < length; begin += 128) {
        int64_t end = length - begin < 128 ? length : begin + 128;
        uint8_t some = 0; /* at most 128 fit; bytes are counted side by side */
        for (int64_t i = begin; i < end; i++) {
            some = (uint8_t)(some + (text[i] == '\n'));
            all |= (uint8_t)text[i];
        }
        lines += some;
    }
    return all & 0x80 ? -1 - lines : lines;
}

/* The name ends with the version of the plan's layout.
   Returns the number of records, all of them in `result`; or -1: not beyond doubt, or no memory, and `result` is empty. */
int64_t collectors_read_json_1(const char *text, int64_t length, const char *plan, struct ArrowArray *result) {
    Node root = {0};
    Reader reader = {text + length, newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    int64_t records = -1;
    memset(result, 0, sizeof *result);
    text_bytes = length;
    text_read = 0;
    if (reader.locale != (locale_t)0 && open_node(&root, plan) != NULL && lines(&reader, &root, text)) {
        records = root.length;
        if (!hand_over(&root, result)) {
            release(result);
            records = -1;
        }
    }
    close_node(&root);
    if (reader.locale != (locale_t)0) freelocale(reader.locale);
    return records;
}
