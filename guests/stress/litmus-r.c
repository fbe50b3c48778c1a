// litmus-r: test R: a read passes the write before it, seen through the order of the writes to y.
//
//   P0                 P1
//   mov [x], 1         mov [y], 2
//   mov [y], 1         mov rax, [x]
//
// Allowed:   all; 1:rax=0; [y]=2; is the relaxed one (Alglave, Maranget, Tautschnig, "Herding
//            cats", TOPLAS 2014: allowed by TSO, forbidden by sequential consistency)
// Forbidden: none but [y]=0;, which nobody wrote
//
// Mode:     user
// vCPUs:    2 or more; 2 take part
// Input:    rbp: rounds (0 means 16384, or 256 in ring 0)
// Output:   none
// Outcomes: the final states
// Exit:     0; a forbidden state fails the iteration

#include "litmus.h"

static void p0(struct variables *v, struct registers *r) {
    (void)r;
    __asm__ volatile("movl $1, %[x]\n\t"
                     "movl $1, %[y]"
                     : [x] "=m"(v->x.value), [y] "=m"(v->y.value));
}

static void p1(struct variables *v, struct registers *r) {
    __asm__ volatile("movl $2, %[y]\n\t"
                     "movl %[x], %[a]"
                     : [y] "=m"(v->y.value), [a] "=&a"(r->a)
                     : [x] "m"(v->x.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[1][i].a;
    values[1] = instances[i].y.value;
}

static bool forbidden(const uint32_t *values) {
    return values[1] == 0;
}

void stress_main(struct vcpu *me) {
    static const struct litmus r = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"1:rax", "[y]"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &r);
}
