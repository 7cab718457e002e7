/* Rows as dicts, made from columns of values and taken apart again.

   A row costs a copy of an empty one and its values; a value costs a look into its dict. The caller has the same in
   Python, several times slower, for machines without a compiler and for everything that is not taken here: buffers of
   Arrow are made only of values that are exactly Python's own bools, ints of 64 bits, floats and texts, all of one kind
   and nulls beside them.

   Called through ctypes with the interpreter's lock held; code of users is called by `call`, and by the comparison of keys
   that are no plain text. Uses the stable ABI only, so that one build serves every version from 3.11 on. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"

enum { NOTHING, BOOL, INT, FLOAT, STRING, OTHER };

typedef struct {
    int kind;
    Py_ssize_t nulls;
    uint8_t *valid;   /* a bit a value */
    uint8_t *data;    /* a word a value; of bools a bit; or text */
    int32_t *offsets; /* of text, one more than values */
    Py_ssize_t used, room; /* of text */
} Column;

static int has_bit(const uint8_t *bits, int64_t place) { return bits[place >> 3] >> (place & 7) & 1; }

/* Returns a new reference. */
static PyObject *value_at(const struct ArrowArray *array, int kind, int64_t row) {
    const void *valid = array->n_buffers > 0 ? array->buffers[0] : NULL;
    row += array->offset;
    if (kind == NOTHING || (valid != NULL && !has_bit(valid, row))) return Py_NewRef(Py_None);
    switch (kind) {
    case BOOL: return PyBool_FromLong(has_bit(array->buffers[1], row));
    case INT: return PyLong_FromLongLong(((const int64_t *)array->buffers[1])[row]);
    case FLOAT: return PyFloat_FromDouble(((const double *)array->buffers[1])[row]);
    default: {
        const int32_t *offsets = (const int32_t *)array->buffers[1] + row;
        const char *text = array->buffers[2] == NULL ? "" : array->buffers[2];
        return PyUnicode_DecodeUTF8(text + offsets[0], offsets[1] - offsets[0], NULL);
    }
    }
}

/* Sets a row's values; returns 0 with an exception. */
static int fill(PyObject *record, PyObject **names, const struct ArrowArray *table, const char *kinds, PyObject *lists, int64_t row) {
    for (int64_t i = 0; i < table->n_children; i++) {
        PyObject *value = kinds[i] != OTHER ? value_at(table->children[i], kinds[i], row)
                                            : Py_XNewRef(PyList_GetItem(PyTuple_GetItem(lists, i), row));
        int failed = value == NULL || PyDict_SetItem(record, names[i], value) < 0;
        Py_XDECREF(value);
        if (failed) return 0;
    }
    return 1;
}

/* Returns the items of a tuple, borrowed, to be freed; NULL with an exception. */
static PyObject **items_of(PyObject *tuple) {
    Py_ssize_t width = PyTuple_Size(tuple);
    PyObject **items = width < 0 ? NULL : malloc(((size_t)width + 1) * sizeof *items);
    if (items == NULL) return PyErr_Occurred() ? NULL : (PyObject **)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < width; i++) items[i] = PyTuple_GetItem(tuple, i);
    return items;
}

/* Returns the rows of a table as dicts, and releases it. Of each column its kind is said, and there is a list of its values
   where that is OTHER. Of columns with one name the last one counts. */
PyObject *collectors_to_dicts_1(PyObject *names, struct ArrowArray *table, const char *kinds, PyObject *lists) {
    PyObject *empty = PyDict_New(), *rows = PyList_New(table->length), **items = items_of(names);
    int good = empty != NULL && rows != NULL && items != NULL;
    for (int64_t i = 0; good && i < table->n_children; i++) good = PyDict_SetItem(empty, items[i], Py_None) == 0;
    for (int64_t row = 0; good && row < table->length; row++) {
        PyObject *record = PyDict_Copy(empty); /* which has room for all of them at once */
        good = record != NULL && PyList_SetItem(rows, row, record) == 0 && fill(record, items, table, kinds, lists, row);
    }
    if (!good) Py_CLEAR(rows);
    Py_XDECREF(empty);
    free(items);
    table->release(table);
    return rows;
}

static int kind_of(PyObject *value) {
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type) return STRING;
    if (type == &PyFloat_Type) return FLOAT;
    if (type == &PyLong_Type) return INT;
    return type == &PyBool_Type ? BOOL : OTHER;
}

static int add_text(Column *column, PyObject *value) {
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text == NULL || column->used + length > INT32_MAX) { /* half a surrogate pair has no UTF-8 */
        PyErr_Clear();
        column->kind = OTHER;
        return 1;
    }
    if (column->used + length > column->room) {
        Py_ssize_t room = 2 * (column->used + length) + 1024;
        uint8_t *larger = realloc(column->data, (size_t)room);
        if (larger == NULL) return 0;
        column->data = larger;
        column->room = room;
    }
    memcpy(column->data + column->used, text, (size_t)length);
    column->used += length;
    return 1;
}

/* Gives the column room for its values, once it is known what they are. */
static int begin(Column *column, int kind, Py_ssize_t count) {
    column->kind = kind;
    if (kind == OTHER) return 1;
    if (kind == STRING) {
        column->room = 16 * count;
        column->offsets = calloc((size_t)count + 1, sizeof *column->offsets);
    }
    column->data = calloc((size_t)count, 16);
    column->valid = calloc((size_t)count / 8 + 1, 1);
    return column->data != NULL && column->valid != NULL && (kind != STRING || column->offsets != NULL);
}

/* Returns 0 when there is no memory. */
static int add(Column *column, PyObject *value, Py_ssize_t row, Py_ssize_t count) {
    if (value == Py_None) {
        column->nulls++;
    } else {
        int kind = kind_of(value), overflow = 0;
        if (column->kind == NOTHING && !begin(column, kind, count)) return 0;
        if (column->kind != kind) column->kind = OTHER;
        if (column->kind == OTHER) return 1;
        column->valid[row >> 3] |= (uint8_t)(1 << (row & 7));
        if (kind == STRING) {
            if (!add_text(column, value)) return 0;
        } else if (kind == FLOAT) {
            ((double *)column->data)[row] = PyFloat_AsDouble(value);
        } else if (kind == INT) {
            ((int64_t *)column->data)[row] = PyLong_AsLongLongAndOverflow(value, &overflow);
            if (overflow) column->kind = OTHER;
        } else if (value == Py_True) {
            column->data[row >> 3] |= (uint8_t)(1 << (row & 7));
        }
    }
    if (column->kind == STRING) column->offsets[row + 1] = (int32_t)column->used;
    return 1;
}

/* Returns (kind, nulls, valid or None, offsets or None, data), or None where the values are not of one plain kind. */
static PyObject *finished(const Column *column, Py_ssize_t count) {
    Py_ssize_t bits = count / 8 + 1, size = column->kind == STRING ? column->used : column->kind == BOOL ? bits : 8 * count;
    PyObject *valid = NULL, *offsets = NULL;
    if (column->kind == OTHER) return Py_BuildValue("");
    if (column->kind == NOTHING) return Py_BuildValue("(inOOO)", NOTHING, count, Py_None, Py_None, Py_None);
    valid = column->nulls ? PyBytes_FromStringAndSize((char *)column->valid, bits) : Py_BuildValue("");
    offsets = column->kind == STRING ? PyBytes_FromStringAndSize((char *)column->offsets, 4 * (count + 1)) : Py_BuildValue("");
    if (valid == NULL || offsets == NULL) {
        Py_XDECREF(valid);
        Py_XDECREF(offsets);
        return NULL;
    }
    return Py_BuildValue("(inNNy#)", column->kind, column->nulls, valid, offsets, (char *)column->data, size);
}

/* Takes the values of a record; returns 1, 0 when its keys are others, -1 with an exception. Most have the same keys, the
   very objects, in the same order, so that none is looked for. */
static int take(PyObject *record, PyObject **names, Column *columns, Py_ssize_t width, Py_ssize_t row, Py_ssize_t count) {
    PyObject *key, *value;
    Py_ssize_t place = 0;
    int in_order = 1;
    if (Py_TYPE(record) != &PyDict_Type || PyDict_Size(record) != width) return 0;
    for (Py_ssize_t i = 0; i < width; i++) {
        in_order = in_order && PyDict_Next(record, &place, &key, &value) && key == names[i];
        if (!in_order) value = PyDict_GetItemWithError(record, names[i]);
        if (value == NULL) return PyErr_Occurred() ? -1 : 0;
        if (columns[i].kind != OTHER && !add(&columns[i], value, row, count)) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 1;
}

static void drop(Column *columns, Py_ssize_t width) {
    for (Py_ssize_t i = 0; columns != NULL && i < width; i++) {
        free(columns[i].valid);
        free(columns[i].data);
        free(columns[i].offsets);
    }
    free(columns);
}

/* Returns a list with what `finished` makes of each column. */
static PyObject *all_finished(const Column *columns, Py_ssize_t width, Py_ssize_t count) {
    PyObject *result = PyList_New(width);
    for (Py_ssize_t i = 0; result != NULL && i < width; i++) {
        PyObject *column = finished(&columns[i], count);
        if (column == NULL) Py_CLEAR(result);
        else PyList_SetItem(result, i, column);
    }
    return result;
}

/* Returns a list with what `finished` makes of each column; None when a record has other keys than these names. */
PyObject *collectors_take_apart_1(PyObject *names, PyObject *records) {
    Py_ssize_t width = PyTuple_Size(names), count = PyList_Size(records);
    Column *columns = width < 0 || count < 0 ? NULL : calloc((size_t)width + 1, sizeof *columns);
    PyObject *result = NULL, **items = items_of(names);
    int taken = 1;
    if (columns == NULL || items == NULL) {
        free(columns);
        free(items);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    for (Py_ssize_t row = 0; row < count && taken == 1; row++)
        taken = take(PyList_GetItem(records, row), items, columns, width, row, count);
    if (taken == 0) result = Py_BuildValue("");
    if (taken == 1) result = all_finished(columns, width, count);
    drop(columns, width);
    free(items);
    return result;
}

/* Like `take`, of a record whose keys are in order and whose values are of the kinds so far, but for the columns of which
   `known` says that nobody needs the values; where it returns 0, nothing was taken. */
static int take_alike(PyObject *record, PyObject **names, const char *known, Column *columns, Py_ssize_t width, Py_ssize_t row, Py_ssize_t count) {
    PyObject *key, *value;
    Py_ssize_t place = 0, taken = 0;
    if (Py_TYPE(record) != &PyDict_Type || PyDict_Size(record) != width) return 0;
    for (; taken < width && PyDict_Next(record, &place, &key, &value); taken++) {
        int kind = columns[taken].kind;
        if (key != names[taken] && (!PyUnicode_CheckExact(key) || PyUnicode_Compare(key, names[taken]) != 0)) break;
        if (known[taken]) continue;
        if (!add(&columns[taken], value, row, count)) {
            PyErr_NoMemory();
            return -1;
        }
        if (columns[taken].kind == OTHER) {
            columns[taken].kind = kind;
            break;
        }
    }
    if (taken == width) return 1;
    place = 0;
    for (Py_ssize_t i = 0; i < taken && PyDict_Next(record, &place, &key, &value); i++) {
        columns[i].nulls -= !known[i] && value == Py_None;
        if (!known[i] && columns[i].nulls == row) columns[i].kind = NOTHING; /* its first value was this record's */
    }
    return 0;
}

/* Returns the exception that was raised, with its traceback. */
static PyObject *caught(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Returns the row as a dict, NULL where that cannot be. */
static PyObject *made(PyObject *empty, PyObject **names, const struct ArrowArray *table, const char *kinds, PyObject *lists, int64_t row) {
    PyObject *record = PyDict_Copy(empty);
    if (record != NULL && !fill(record, names, table, kinds, lists, row)) Py_CLEAR(record);
    if (record == NULL) PyErr_Clear();
    return record;
}

/* Calls a function for the rows of a table, which it releases, and takes the dicts that it returns apart while they are in
   the processor's cache. Returns (columns, rows, done, result, error): what `finished` makes of the columns with these new
   names, from which row each of their values is, as ints of 32 bits, and for how many rows that is; rows are numbered from
   `first` on. Columns of which `known` has a one are nulls. Where it is not for all, the function was called for one more, and returned a result that is not None nor a
   dict like the others, or raised an error; if there is neither, it was not called, for the row is not to be had as a dict. */
PyObject *collectors_call_2(PyObject *function, PyObject *names, struct ArrowArray *table, const char *kinds, PyObject *lists, PyObject *new_names, const char *known, int first) {
    Py_ssize_t width = PyTuple_Size(new_names), kept = 0, row = 0, count = table->length;
    PyObject *empty = PyDict_New(), *result = NULL, *error = NULL, *found = NULL, **items = items_of(names), **new_items = items_of(new_names);
    Column *columns = calloc((size_t)width + 1, sizeof *columns);
    int32_t *rows = malloc((size_t)count * sizeof *rows + 1);
    int taken = empty != NULL && items != NULL && new_items != NULL && columns != NULL && rows != NULL ? 1 : -1;
    for (int64_t i = 0; taken == 1 && i < table->n_children; i++) taken = PyDict_SetItem(empty, items[i], Py_None) == 0 ? 1 : -1;
    while (taken == 1 && row < count) {
        PyObject *record = made(empty, items, table, kinds, lists, row);
        if (record == NULL) break;
        result = PyObject_CallFunctionObjArgs(function, record, NULL);
        Py_DECREF(record);
        if (result == NULL) {
            error = caught();
            break;
        }
        if (result != Py_None) {
            taken = take_alike(result, new_items, known, columns, width, kept, count);
            if (taken != 1) break;
            rows[kept++] = (int32_t)(first + row);
        }
        Py_CLEAR(result);
        row++;
    }
    if (taken == -1 && !PyErr_Occurred()) PyErr_NoMemory();
    if (taken != -1) found = all_finished(columns, width, kept);
    if (found != NULL)
        found = Py_BuildValue("(Ny#nOO)", found, (char *)rows, kept * (Py_ssize_t)sizeof *rows, row,
                              result == NULL ? Py_None : result, error == NULL ? Py_None : error);
    Py_XDECREF(empty);
    Py_XDECREF(result);
    Py_XDECREF(error);
    drop(columns, width);
    free(rows);
    free(items);
    free(new_items);
    table->release(table);
    return found;
}
