#include "util/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void list_is_found_sorted_or_not(void **unused)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    struct err err = ERR_INIT;
    static const float data[6] = {0};
    char name[32];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "layer.%d", i * 37 % 100);
        int64_t dims[2] = {2, i};
        assert_int_equal(tensor_list_add(&list, name, DT_F32, 2, dims, data, &err), ST_OK);
    }
    snprintf(name, sizeof name, "changed afterwards");
    for (int sorted = 0; sorted < 2; sorted++) {
        for (int i = 0; i < 100; i++) {
            snprintf(name, sizeof name, "layer.%d", i * 37 % 100);
            const struct tensor *t = tensor_list_find(&list, name);
            assert_non_null(t);
            assert_string_equal(t->name, name);
            assert_int_equal(t->dims[1], i);
            assert_int_equal(tensor_count(t), 2 * i);
            assert_int_equal(t->n_bytes, 8 * i);
            assert_ptr_equal(t->data, data);
        }
        assert_null(tensor_list_find(&list, "layer.100"));
        assert_null(tensor_list_find(&list, ""));
        tensor_list_sort(&list);
    }
    for (int i = 1; i < list.n_items; i++)
        assert_true(strcmp(list.items[i - 1].name, list.items[i].name) < 0);
    assert_int_equal(tensor_list_add(&list, "a", DT_I8, 0, NULL, data, &err), ST_OK);
    const struct tensor *scalar = tensor_list_find(&list, "a");
    assert_non_null(scalar);
    assert_int_equal(tensor_count(scalar), 1);
    assert_int_equal(scalar->n_bytes, 1);
    tensor_list_release(&list);
    assert_int_equal(list.n_items, 0);
    assert_null(tensor_list_find(&list, "a"));
}

static void bad_shapes(void **unused)
{
    static const struct {
        int n_dims;
        int64_t dims[4];
        const char *what;
    } bad[] = {
        {5, {1, 1, 1, 1}, "tensor \"x\" has 5 dimensions, at most 4 are supported"},
        {-1, {0}, "tensor \"x\" has -1 dimensions, at most 4 are supported"},
        {2, {3, -1}, "tensor \"x\": dimension 1 is negative"},
        {2, {INT64_MAX, 2}, "tensor \"x\" is too large for this machine's addresses"},
        {1, {INT64_MAX / 2}, "tensor \"x\" is too large for this machine's addresses"},
        {4, {1 << 20, 1 << 20, 1 << 20, 1 << 20}, "tensor \"x\" is too large for this machine's addresses"},
        {3, {0, INT64_MAX, INT64_MAX}, "tensor \"x\" is too large for this machine's addresses"},
    };
    struct tensor_list list = TENSOR_LIST_INIT;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(tensor_list_add(&list, "x", DT_F32, bad[i].n_dims, bad[i].dims, NULL, &err),
                         ST_INPUT);
        assert_string_equal(err.what, bad[i].what);
    }
    struct err err = ERR_INIT;
    assert_int_equal(tensor_list_add(&list, "x", N_DTYPES, 0, NULL, NULL, &err), ST_DEFECT);
    int64_t empty[2] = {0, 1 << 30};
    assert_int_equal(list.n_items, 0);
    assert_int_equal(tensor_list_add(&list, "empty", DT_F32, 2, empty, NULL, NULL), ST_OK);
    assert_int_equal(list.items[0].n_bytes, 0);
    assert_int_equal(tensor_count(&list.items[0]), 0);
    tensor_list_release(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_is_found_sorted_or_not),
        cmocka_unit_test(bad_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
