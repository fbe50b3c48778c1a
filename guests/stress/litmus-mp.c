// litmus-mp: message passing, MP: who sees the flag, written last, sees the message.
//
//   P0                 P1
//   mov [x], 1         mov rax, [y]
//   mov [y], 1         mov rbx, [x]
//
// Allowed:   all others
// Forbidden: 1:rax=1; 1:rbx=0; (Sewell and others, "x86-TSO", CACM 2010, example 8-1: store
//            buffers are first in, first out)
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
    __asm__ volatile("movl %[y], %[a]\n\t"
                     "movl %[x], %[b]"
                     : [a] "=&a"(r->a), [b] "=&b"(r->b)
                     : [x] "m"(v->x.value), [y] "m"(v->y.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[1][i].a;
    values[1] = results[1][i].b;
}

static bool forbidden(const uint32_t *values) {
    return values[0] == 1 && values[1] == 0;
}

void stress_main(struct vcpu *me) {
    static const struct litmus mp = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"1:rax", "1:rbx"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &mp);
}
