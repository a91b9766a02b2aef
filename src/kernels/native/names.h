/* Names of what is compiled once for every instruction set, RAREFY_SET, and once more with RAREFY_ROUNDS_TWICE. */
#define JOINED(a, b, c) a##b##c
#ifdef RAREFY_ROUNDS_TWICE
#define NAME(base, set) JOINED(base, _twice_, set)
#else
#define NAME(base, set) JOINED(base, _, set)
#endif
#define NAMED(base) NAME(base, RAREFY_SET)
