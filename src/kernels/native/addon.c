/* The Node-API addon:
 *
 *   open(limit, roundsTwice) → undefined, or { set, constants, records, attach, useLargePages } of the set of kernels named `limit` ("avx2" …; undefined: the
 *     best that this machine runs); roundsTwice: a · b + c is rounded twice, as engines without relaxed SIMD do
 *   attach(memory, thread, threads) → (kernel, record) → 1, or 0 where the kernel does not know the record's variant
 *   useLargePages(bytes): for the memory under a Uint8Array, all of which will be written
 *
 * `memory` is a Uint8Array over the memory of the WebAssembly backend, which never moves; the instance of the module that imports the
 * function keeps it alive. `constants` and `records` say what the addon was compiled with, for its host to compare. */
#define NAPI_VERSION 8
#include "kernels.h"

#include <node_api.h>
#include <stdlib.h>

typedef struct {
  const kernel_set *set;
  place at;
} attached;

static napi_value throw_error(napi_env env, const char *message) {
  napi_throw_error(env, NULL, message);
  return NULL;
}

static napi_value run_kernel(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2], result;
  void *data;
  uint32_t kernel_code = 0, record = 0;
  napi_get_cb_info(env, info, &count, arguments, NULL, &data);
  napi_get_value_uint32(env, arguments[0], &kernel_code);
  /* Offsets above 2 GiB come as negative numbers from WebAssembly. */
  napi_get_value_uint32(env, arguments[1], &record);
  const attached *to = data;
  int done = 0;
  if (kernel_code < rarefy_native_kernels && to->set->kernels[kernel_code] != NULL)
    done = to->set->kernels[kernel_code](&to->at, to->at.memory + record);
  napi_create_int32(env, done, &result);
  return result;
}

static void free_attached(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  free(data);
}

static napi_value attach(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3], function;
  void *set;
  napi_get_cb_info(env, info, &count, arguments, NULL, &set);
  napi_typedarray_type type;
  void *memory;
  int32_t thread, threads;
  if (count != 3 || napi_get_typedarray_info(env, arguments[0], &type, NULL, &memory, NULL, NULL) != napi_ok || type != napi_uint8_array ||
      napi_get_value_int32(env, arguments[1], &thread) != napi_ok || napi_get_value_int32(env, arguments[2], &threads) != napi_ok)
    return throw_error(env, "expected attach(Uint8Array, thread, threads)");
  attached *to = malloc(sizeof *to);
  if (to == NULL) return throw_error(env, "no memory left");
  *to = (attached){set, {memory, thread, threads}};
  if (napi_create_function(env, "native", NAPI_AUTO_LENGTH, run_kernel, to, &function) != napi_ok ||
      napi_add_finalizer(env, function, to, free_attached, NULL, NULL) != napi_ok) {
    free(to);
    return throw_error(env, "the function could not be made");
  }
  return function;
}

static napi_value use_pages(napi_env env, napi_callback_info info) {
  size_t count = 1, length;
  napi_value bytes;
  napi_typedarray_type type;
  void *start;
  napi_get_cb_info(env, info, &count, &bytes, NULL, NULL);
  if (count != 1 || napi_get_typedarray_info(env, bytes, &type, &length, &start, NULL, NULL) != napi_ok || type != napi_uint8_array)
    return throw_error(env, "expected useLargePages(Uint8Array)");
  use_large_pages(start, length);
  return NULL;
}

static void set_text(napi_env env, napi_value object, const char *name, const char *text) {
  napi_value value;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, object, name, value);
}

static void set_number(napi_env env, napi_value object, const char *name, int32_t number) {
  napi_value value;
  napi_create_int32(env, number, &value);
  napi_set_named_property(env, object, name, value);
}

static napi_value open_kernels(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2], result, constants, records, function;
  char limit[16] = "";
  bool rounds_twice = false;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  napi_get_value_bool(env, arguments[1], &rounds_twice);
  const int limited = napi_get_value_string_utf8(env, arguments[0], limit, sizeof limit, NULL) == napi_ok;
  const kernel_set *set = choose_kernels(limited ? limit : NULL, rounds_twice);
  if (set == NULL) return NULL;
  napi_create_object(env, &result);
  napi_create_object(env, &constants);
  napi_create_object(env, &records);
  set_text(env, result, "set", set->name);
#define CONSTANT(name, value) set_number(env, constants, name, value);
#include "uses.h"
#undef CONSTANT
#define RECORD(name, words) set_text(env, records, name, words);
#include "uses.h"
#undef RECORD
  napi_set_named_property(env, result, "constants", constants);
  napi_set_named_property(env, result, "records", records);
  napi_create_function(env, "attach", NAPI_AUTO_LENGTH, attach, (void *)set, &function);
  napi_set_named_property(env, result, "attach", function);
  napi_create_function(env, "useLargePages", NAPI_AUTO_LENGTH, use_pages, NULL, &function);
  napi_set_named_property(env, result, "useLargePages", function);
  return result;
}

NAPI_MODULE_EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value function;
  napi_create_function(env, "open", NAPI_AUTO_LENGTH, open_kernels, NULL, &function);
  napi_set_named_property(env, exports, "open", function);
  return exports;
}
NAPI_MODULE_EXPORT int32_t node_api_module_get_api_version_v1(void) { return NAPI_VERSION; }
