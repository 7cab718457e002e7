/* Lines of access logs, as Apache and nginx write them, into columns: one pass that finds the fields, one that copies them.

   It takes only lines about which there can be no two opinions: plain ASCII without backslashes and control characters, a
   method, a path and a protocol, a time that exists. The others are named, and the caller reads them in the slower way.

   Called through ctypes, without the interpreter's lock: nothing here knows Python, and nothing asks for memory: all
   buffers are the caller's. The text is that of a `bytes` object, so a NUL is behind it; no loop goes past a line's end. */

#include <stdint.h>
#include <string.h>

enum { HOST, IDENT, USER, METHOD, PATH, PROTOCOL, REFERER, AGENT, TEXTS };

typedef struct {
    int32_t begin, length;
} Span;

typedef struct {
    Span texts[TEXTS];
    int64_t time, status, size; /* a size is -1 where there is none */
} Line;

/* The record's number, where it begins, where it ends. */
typedef struct {
    int64_t number, begin, end;
} Other;

/* Returns the byte behind a field that has at least one character and ends with this one, NULL where there is none. */
static const char *field(const char *text, const char *p, const char *end, char stop, Span *span) {
    const char *found = memchr(p, stop, (size_t)(end - p));
    if (found == NULL || found == p) return NULL;
    span->begin = (int32_t)(p - text);
    span->length = (int32_t)(found - p);
    return found + 1;
}

/* The same of a field that may be empty. */
static const char *quoted(const char *text, const char *p, const char *end, Span *span) {
    const char *found;
    if (end - p < 2 || p[0] != ' ' || p[1] != '"') return NULL;
    p += 2;
    found = memchr(p, '"', (size_t)(end - p));
    if (found == NULL) return NULL;
    span->begin = (int32_t)(p - text);
    span->length = (int32_t)(found - p);
    return found + 1;
}

/* Returns so many digits as a number, -1 where they are none. */
static int64_t digits(const char *p, int64_t count) {
    int64_t number = 0;
    for (int64_t i = 0; i < count; i++) {
        if (p[i] < '0' || p[i] > '9') return -1;
        number = 10 * number + (p[i] - '0');
    }
    return number;
}

/* `10/Oct/2000:13:55:36 -0700`: 26 characters, as microseconds since 1970; 0 where it is no time. */
static int read_time(const char *p, int64_t *time) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t day = digits(p, 2), year = digits(p + 7, 4), hour = digits(p + 12, 2), minute = digits(p + 15, 2);
    int64_t second = digits(p + 18, 2), zone_hour = digits(p + 22, 2), zone_minute = digits(p + 24, 2), zone, years, days;
    int month = 0, leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    while (month < 12 && memcmp(months + 3 * month, p + 3, 3) != 0) month++;
    if (month == 12 || p[2] != '/' || p[6] != '/' || p[11] != ':' || p[14] != ':' || p[17] != ':' || p[20] != ' ') return 0;
    if (day < 1 || day > lengths[month] + (leap && month == 1) || year < 1) return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return 0;
    if ((p[21] != '+' && p[21] != '-') || zone_hour < 0 || zone_hour > 23 || zone_minute < 0 || zone_minute > 59) return 0;
    zone = 60 * zone_hour + zone_minute;
    if (p[21] == '-') zone = -zone;
    years = year - 1;
    days = 365 * years + years / 4 - years / 100 + years / 400 - 719162 + day - 1 + (leap && month > 1);
    for (int i = 0; i < month; i++) days += lengths[i];
    *time = (((24 * days + hour) * 60 + minute - zone) * 60 + second) * 1000000;
    return 1;
}

/* Returns whether a byte is beyond ASCII, a control character or a backslash. */
static int is_unclear(const char *p, int64_t length) {
    uint8_t found = 0;
    for (int64_t i = 0; i < length; i++) {
        uint8_t c = (uint8_t)p[i];
        found |= (uint8_t)((c < 32) | (c == '\\') | (c & 0x80));
    }
    return found != 0;
}

/* `[time] "method path protocol" status size`; returns what is behind it. */
static const char *answer(const char *text, const char *p, const char *end, Line *line, const Line *before) {
    Span *request = &line->texts[METHOD];
    const char *stop;
    if (end - p < 30 || p[0] != '[' || memcmp(p + 27, "] \"", 3) != 0) return NULL;
    if (before != NULL && memcmp(p + 1, text + before->texts[USER].begin + before->texts[USER].length + 2, 26) == 0)
        line->time = before->time;
    else if (!read_time(p + 1, &line->time))
        return NULL;
    p += 30;
    if ((p = field(text, p, end, ' ', &request[0])) == NULL) return NULL;
    if ((p = field(text, p, end, ' ', &request[1])) == NULL) return NULL;
    if ((p = field(text, p, end, '"', &request[2])) == NULL) return NULL;
    for (int32_t i = 0; i < request[0].length; i++)
        if (text[request[0].begin + i] < 'A' || text[request[0].begin + i] > 'Z') return NULL;
    if (memchr(text + request[1].begin, '"', (size_t)request[1].length) != NULL) return NULL;
    if (request[2].length < 6 || memcmp(text + request[2].begin, "HTTP/", 5) != 0) return NULL;
    for (int32_t i = 5; i < request[2].length; i++) {
        char c = text[request[2].begin + i];
        if ((c < '0' || c > '9') && c != '.') return NULL;
    }
    if (end - p < 6 || p[0] != ' ' || p[4] != ' ' || (line->status = digits(p + 1, 3)) < 0) return NULL;
    p += 5;
    for (stop = p; stop < end && *stop != ' ';) stop++;
    line->size = -1;
    if ((stop - p != 1 || *p != '-') && (stop == p || stop - p > 18 || (line->size = digits(p, stop - p)) < 0)) return NULL;
    return stop;
}

static int one(const char *text, const char *p, const char *end, int combined, Line *line, const Line *before) {
    for (int i = HOST; i <= USER; i++) {
        if ((p = field(text, p, end, ' ', &line->texts[i])) == NULL) return 0;
        if (memchr(text + line->texts[i].begin, '"', (size_t)line->texts[i].length) != NULL) return 0;
        if (i > HOST && text[line->texts[i].begin] == '[') return 0; /* perhaps where the time begins */
    }
    if ((p = answer(text, p, end, line, before)) == NULL) return 0;
    if (combined) {
        if ((p = quoted(text, p, end, &line->texts[REFERER])) == NULL) return 0;
        if ((p = quoted(text, p, end, &line->texts[AGENT])) == NULL) return 0;
    }
    return p == end;
}

/* Returns the number of lines that were taken. There is room in `lines` and in `others` for as many as the text has line
   feeds, and one more. `lengths` are sums: of each field, how much text there is; then the number of others. */
int64_t collectors_scan_log_1(const char *text, int64_t size, int combined, Line *lines, Other *others, int64_t *lengths) {
    int64_t taken = 0, other = 0;
    for (const char *p = text, *end; p - text < size; p = end + 1) {
        const char *last;
        end = memchr(p, '\n', (size_t)(size - (p - text)));
        if (end == NULL) end = text + size;
        last = end > p && end[-1] == '\r' ? end - 1 : end;
        if (!is_unclear(p, last - p) && one(text, p, last, combined, &lines[taken], taken > 0 ? &lines[taken - 1] : NULL)) {
            for (int i = 0; i < TEXTS - (combined ? 0 : 2); i++) lengths[i] += lines[taken].texts[i].length;
            taken++;
        } else {
            for (last = p; last < end && (*last == ' ' || *last == '\t' || *last == '\r');) last++;
            if (last == end) continue; /* nothing in it, so it is no record */
            others[other] = (Other){taken + other, p - text, end - text};
            other++;
        }
    }
    lengths[TEXTS] = other;
    return taken;
}

/* Fills the buffers of a column of text: a bit and an offset a line, and one more offset. What is `-` or empty is null.
   Returns how many nulls there are. */
int64_t collectors_copy_field_1(const char *text, const Line *lines, int64_t count, int which, uint8_t *valid, int32_t *offsets, char *data) {
    int64_t nulls = 0;
    int32_t used = 0;
    memset(valid, 0, (size_t)(count + 7) / 8);
    for (int64_t i = 0; i < count; i++) {
        const Span *span = &lines[i].texts[which];
        int is_null = span->length == 0 || (span->length == 1 && text[span->begin] == '-');
        offsets[i] = used;
        if (!is_null) {
            memcpy(data + used, text + span->begin, (size_t)span->length);
            used += span->length;
            valid[i >> 3] |= (uint8_t)(1 << (i & 7));
        }
        nulls += is_null;
    }
    offsets[count] = used;
    return nulls;
}

/* Fills the buffers of times, of statuses and of sizes. Returns how many lines have no size. */
int64_t collectors_copy_numbers_1(const Line *lines, int64_t count, int64_t *times, int64_t *statuses, int64_t *sizes, uint8_t *has_size) {
    int64_t nulls = 0;
    memset(has_size, 0, (size_t)(count + 7) / 8);
    for (int64_t i = 0; i < count; i++) {
        times[i] = lines[i].time;
        statuses[i] = lines[i].status;
        sizes[i] = lines[i].size < 0 ? 0 : lines[i].size;
        nulls += lines[i].size < 0;
        has_size[i >> 3] |= (uint8_t)((lines[i].size >= 0) << (i & 7));
    }
    return nulls;
}
