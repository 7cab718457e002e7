/* Columns of Arrow into lines of JSON, one object a row: one pass, no objects in between.

   What comes out is, byte for byte, what msgspec writes of the same values; the caller has that way too, for machines
   without a compiler and for types that are not taken here. Floats are the shortest decimal that reads back as the same
   float, NaN and infinities are null, times are ISO 8601.

   Called through ctypes, without the interpreter's lock: nothing here knows Python. Columns come by Arrow's C data interface
   (https://arrow.apache.org/docs/format/CDataInterface.html), with a plan that says what they are. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"

enum {
    BLOCK = 16,
    DIGITS = 24,
    SCALAR = 96 /* room for a value that is no text, with what is copied beside it */
};
enum { NOTHING, BOOL, INT, FLOAT, STRING, STRUCT, LIST, TIME, UTC_TIME };

typedef struct Node {
    int kind;
    const char *name; /* as JSON, with its quotes and the colon */
    int64_t name_length;
    int64_t n_children;
    struct Node *children;
    int64_t offset;
    const uint8_t *valid;
    const void *data;
    const int32_t *offsets;
} Node;

typedef struct {
    char *text;
    int64_t used, room;
    const uint64_t *powers; /* see `shortest` */
} Writer;

/* Returns room for so many more bytes, NULL when there is no memory. */
static char *more(Writer *out, int64_t bytes) {
    if (out->used + bytes > out->room) {
        int64_t room = out->room + out->room / 2 + bytes + 1024;
        char *larger = realloc(out->text, (size_t)room);
        if (larger == NULL) return NULL;
        out->text = larger;
        out->room = room;
    }
    return out->text + out->used;
}

/* Copies in blocks: the source and the room have some bytes more. */
static char *copy(char *to, const char *from, int64_t length) {
    for (int64_t i = 0; i < length; i += BLOCK) memcpy(to + i, from + i, BLOCK);
    return to + length;
}

static int has_bit(const uint8_t *bits, int64_t place) { return bits[place >> 3] >> (place & 7) & 1; }

static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                            "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                            "9899";

/* Writes digits that end before `end`; returns where they begin. */
static char *digits_before(char *end, uint64_t number) {
    while (number >= 100) {
        end -= 2;
        memcpy(end, PAIRS + 2 * (number % 100), 2);
        number /= 100;
    }
    if (number >= 10) {
        end -= 2;
        memcpy(end, PAIRS + 2 * number, 2);
    } else {
        *--end = (char)('0' + number);
    }
    return end;
}

static char *write_int(char *to, int64_t number) {
    char digits[2 * DIGITS], *end = digits + DIGITS;
    char *begin = digits_before(end, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
    if (number < 0) *--begin = '-';
    memcpy(to, begin, DIGITS);
    return to + (end - begin);
}

/* The upper 64 bits of a product of 192, odd when any lower one is set. */
static uint64_t round_to_odd(const uint64_t *power, uint64_t factor) {
    unsigned __int128 low = (unsigned __int128)power[1] * factor;
    unsigned __int128 high = (unsigned __int128)power[0] * factor + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* The shortest decimal, digits times a power of ten, that rounds to the float: R. Giulietti, "The Schubfach way to render
   doubles", 2020. `powers` are 10^k for k from -292 to 324, the upper 128 bits of each, rounded up. */
static uint64_t shortest(const uint64_t *powers, uint64_t bits, int *exponent) {
    uint64_t fraction = bits & (((uint64_t)1 << 52) - 1), c = fraction, s, ten, lower, upper, middle;
    int biased = (int)(bits >> 52 & 0x7FF), q = 1 - 1075, closer = fraction == 0 && biased > 1, k, h, below, above;
    if (biased != 0) {
        c |= (uint64_t)1 << 52;
        q = biased - 1075;
        if (q <= 0 && q > -53 && (c & (((uint64_t)1 << -q) - 1)) == 0) {
            *exponent = 0;
            return c >> -q;
        }
    }
    k = (q * 1262611 - (closer ? 524031 : 0)) >> 22; /* floor of log10 of 2^q, or of 3/4 of it */
    h = q + ((-k * 1741647) >> 19) + 1;
    powers += 2 * (292 - k);
    lower = round_to_odd(powers, (4 * c - 2 + (uint64_t)closer) << h) + (c & 1);
    middle = round_to_odd(powers, (4 * c) << h);
    upper = round_to_odd(powers, (4 * c + 2) << h) - (c & 1);
    s = middle / 4;
    ten = s / 10;
    if (s >= 10) {
        below = lower <= 40 * ten;
        above = 40 * ten + 40 <= upper;
        if (below != above) {
            *exponent = k + 1;
            return ten + (uint64_t)above;
        }
    }
    *exponent = k;
    below = lower <= 4 * s;
    above = 4 * s + 4 <= upper;
    if (below != above) return s + (uint64_t)above;
    return s + (middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1)));
}

/* Returns the digits of a float that has at most four decimals, with four; 0 when it has more, or too many digits: up to 15
   of them, one decimal is the only one of that float (DBL_DIG), so that it is the shortest one, too. */
static uint64_t few_decimals(double value) {
    double scaled = value * 1e4;
    uint64_t number;
    if (!(scaled >= 1 && scaled < 1e15)) return 0;
    number = (uint64_t)(scaled + 0.5);
    return (double)number / 1e4 == value ? number : 0;
}

static char *write_float(char *to, const uint64_t *powers, double value) {
    char digits[2 * DIGITS], *end = digits + DIGITS, *begin;
    uint64_t bits, number;
    int exponent = -4, length, point;
    memcpy(&bits, &value, sizeof bits);
    if ((bits >> 52 & 0x7FF) == 0x7FF) return copy(to, "null            ", 4);
    if (bits >> 63) *to++ = '-';
    if (bits << 1 == 0) return copy(to, "0.0             ", 3);
    bits &= ~((uint64_t)1 << 63);
    memcpy(&value, &bits, sizeof bits);
    number = few_decimals(value);
    if (number == 0) number = shortest(powers, bits, &exponent);
    begin = digits_before(end, number);
    for (; end[-1] == '0'; end--) exponent++;
    length = (int)(end - begin);
    point = length + exponent; /* so many digits are before the point */
    if (exponent >= 0 && point <= 16) {
        memcpy(to, begin, DIGITS);
        memset(to + length, '0', (size_t)exponent);
        return copy(to + point, ".0              ", 2);
    }
    if (point > 0 && point <= 16) {
        memcpy(to, begin, DIGITS);
        to[point] = '.';
        memcpy(to + point + 1, begin + point, DIGITS);
        return to + length + 1;
    }
    if (point > -5 && point <= 0) {
        to = copy(to, "0.0000          ", 2 - point);
        memcpy(to, begin, DIGITS);
        return to + length;
    }
    *to++ = *begin++;
    if (length > 1) {
        *to++ = '.';
        memcpy(to, begin, DIGITS);
        to += length - 1;
    }
    *to++ = 'e';
    return write_int(to, point - 1);
}

static char *write_escape(char *to, char byte) {
    static const char hex[] = "0123456789abcdef", special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *found = byte ? memchr(special, byte, sizeof special - 1) : NULL;
    *to++ = '\\';
    if (found != NULL) {
        *to++ = letter[found - special];
        return to;
    }
    to = copy(to, "u00             ", 3);
    *to++ = hex[(unsigned char)byte >> 4];
    *to++ = hex[byte & 15];
    return to;
}

static int put_string(Writer *out, const char *p, int64_t length) {
    const char *end = p + length;
    char *to = more(out, length + SCALAR);
    if (to == NULL) return 0;
    *to++ = '"';
    for (;;) {
        const char *stop = plain_copied(to, p, end);
        to += stop - p;
        if (stop == end) break;
        out->used = to - out->text;
        to = more(out, end - stop + SCALAR);
        if (to == NULL) return 0;
        to = write_escape(to, *stop);
        p = stop + 1;
    }
    *to++ = '"';
    out->used = to - out->text;
    return 1;
}

/* Microseconds since 1970, in the years 1 to 9999. The date is by H. Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static char *write_time(char *to, int64_t value, int is_utc) {
    const int64_t day = 86400LL * 1000000;
    int64_t rest = value % day, days = value / day, era, year;
    uint32_t of_era, years, of_year, month, seconds, micros;
    if (rest < 0) {
        rest += day;
        days--;
    }
    if (days < -719162 || days > 2932896) return NULL;
    seconds = (uint32_t)(rest / 1000000);
    micros = (uint32_t)(rest % 1000000);
    days += 719468;
    era = days / 146097; /* days are not below zero any more */
    of_era = (uint32_t)(days - era * 146097);
    years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    of_year = of_era - (365 * years + years / 4 - years / 100);
    month = (5 * of_year + 2) / 153;
    year = years + era * 400 + (month >= 10);
    memcpy(to, "\"0000-00-00T00:00:00.000000", 27);
    digits_before(to + 5, (uint64_t)year);
    digits_before(to + 8, month < 10 ? month + 3 : month - 9);
    digits_before(to + 11, of_year - (153 * month + 2) / 5 + 1);
    digits_before(to + 14, seconds / 3600);
    digits_before(to + 17, seconds / 60 % 60);
    digits_before(to + 20, seconds % 60);
    digits_before(to + 27, micros);
    to += micros ? 27 : 20;
    if (is_utc) *to++ = 'Z';
    *to++ = '"';
    return to;
}

static int put_value(Writer *out, const Node *node, int64_t row);

static int put_byte(Writer *out, char byte) {
    char *to = more(out, 1);
    if (to == NULL) return 0;
    *to = byte;
    out->used++;
    return 1;
}

static int put_members(Writer *out, const Node *node, int64_t row) {
    if (!put_byte(out, '{')) return 0;
    for (int64_t i = 0; i < node->n_children; i++) {
        const Node *child = &node->children[i];
        char *to = more(out, child->name_length + SCALAR);
        if (to == NULL) return 0;
        if (i > 0) *to++ = ',';
        out->used = copy(to, child->name, child->name_length) - out->text;
        if (!put_value(out, child, row)) return 0;
    }
    return put_byte(out, '}');
}

static int put_items(Writer *out, const Node *node, int64_t row) {
    if (!put_byte(out, '[')) return 0;
    for (int64_t i = node->offsets[row]; i < node->offsets[row + 1]; i++)
        if ((i > node->offsets[row] && !put_byte(out, ',')) || !put_value(out, &node->children[0], i)) return 0;
    return put_byte(out, ']');
}

static int put_value(Writer *out, const Node *node, int64_t row) {
    char *to = more(out, SCALAR);
    if (to == NULL) return 0;
    row += node->offset;
    if (node->kind == NOTHING || (node->valid != NULL && !has_bit(node->valid, row))) {
        to = copy(to, "null            ", 4);
    } else {
        switch (node->kind) {
        case BOOL: to = has_bit(node->data, row) ? copy(to, "true            ", 4) : copy(to, "false           ", 5); break;
        case INT: to = write_int(to, ((const int64_t *)node->data)[row]); break;
        case FLOAT: to = write_float(to, out->powers, ((const double *)node->data)[row]); break;
        case STRING: return put_string(out, (const char *)node->data + node->offsets[row], node->offsets[row + 1] - node->offsets[row]);
        case STRUCT: return put_members(out, node, row);
        case LIST: return put_items(out, node, row);
        default: to = write_time(to, ((const int64_t *)node->data)[row], node->kind == UTC_TIME);
        }
        if (to == NULL) return 0;
    }
    out->used = to - out->text;
    return 1;
}

/* Reads a column from the plan: kind, length of the name, number of children, name, children. */
static const char *open_node(Node *node, const struct ArrowArray *array, const char *plan) {
    static const char none[1];
    int32_t numbers[2];
    node->kind = *plan++;
    memcpy(numbers, plan, sizeof numbers);
    plan += sizeof numbers;
    node->name = plan;
    node->name_length = numbers[0];
    plan += numbers[0];
    node->offset = array->offset;
    if (array->n_buffers > 0) node->valid = array->buffers[0];
    if (node->kind == STRING || node->kind == LIST) node->offsets = array->buffers[1];
    if (array->n_buffers > 1) node->data = array->buffers[array->n_buffers - 1];
    if (node->data == NULL) node->data = none; /* of texts that are all empty */
    if (array->n_children != numbers[1]) return NULL;
    node->children = calloc((size_t)numbers[1] + 1, sizeof *node->children);
    if (node->children == NULL) return NULL;
    while (node->n_children < numbers[1]) {
        int64_t i = node->n_children++;
        plan = open_node(&node->children[i], array->children[i], plan);
        if (plan == NULL) return NULL;
    }
    return plan;
}

static void close_node(Node *node) {
    for (int64_t i = 0; i < node->n_children; i++) close_node(&node->children[i]);
    free(node->children);
}

/* The name ends with the version of the plan's layout. Releases the rows.
   Returns the length of the text, which is to be given to `collectors_free_1`; -1 when a time has no year that JSON could
   have, or there is no memory. */
int64_t collectors_write_json_1(struct ArrowArray *rows, const char *plan, const uint64_t *powers, char **text) {
    Node root = {0};
    Writer out = {NULL, 0, 0, powers};
    int good = open_node(&root, rows, plan) != NULL;
    for (int64_t row = 0; good && row < rows->length; row++) good = put_value(&out, &root, row) && put_byte(&out, '\n');
    close_node(&root);
    rows->release(rows);
    if (!good) free(out.text);
    *text = good ? out.text : NULL;
    return good ? out.used : -1;
}

void collectors_free_1(char *text) { free(text); }
