// litmus-lb: load buffering, LB: each vCPU reads one variable, then writes the other; no read is
// delayed past a later write.
//
//   P0                 P1
//   mov rax, [x]       mov rbx, [y]
//   mov [y], 1         mov [x], 1
//
// Allowed:   all others
// Forbidden: 0:rax=1; 1:rbx=1; (Sewell and others, "x86-TSO", CACM 2010, example 8-2)
//
// Mode:     user
// vCPUs:    2 or more; 2 take part
// Input:    rbp: rounds (0 means 16384, or 256 in ring 0)
// Output:   none
// Outcomes: the final states
// Exit:     0; a forbidden state fails the iteration

#include "litmus.h"

static void p0(struct variables *v, struct registers *r) {
    __asm__ volatile("movl %[x], %[a]\n\t"
                     "movl $1, %[y]"
                     : [y] "=m"(v->y.value), [a] "=&a"(r->a)
                     : [x] "m"(v->x.value));
}

static void p1(struct variables *v, struct registers *r) {
    __asm__ volatile("movl %[y], %[b]\n\t"
                     "movl $1, %[x]"
                     : [x] "=m"(v->x.value), [b] "=&b"(r->b)
                     : [y] "m"(v->y.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[0][i].a;
    values[1] = results[1][i].b;
}

static bool forbidden(const uint32_t *values) {
    return values[0] == 1 && values[1] == 1;
}

void stress_main(struct vcpu *me) {
    static const struct litmus lb = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"0:rax", "1:rbx"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &lb);
}
