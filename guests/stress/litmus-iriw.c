// litmus-iriw: independent reads of independent writes, IRIW: two vCPUs that read both variables
// agree on which was written first.
//
//   P0             P1             P2                 P3
//   mov [x], 1     mov [y], 1     mov rax, [x]       mov rax, [y]
//                                 mov rbx, [y]       mov rbx, [x]
//
// Allowed:   all others
// Forbidden: 2:rax=1; 2:rbx=0; 3:rax=1; 3:rbx=0; (Owens, Sarkar, Sewell, TPHOLs 2009: there is
//            one order of all writes to memory)
//
// Mode:     user
// vCPUs:    4 or more; 4 take part
// Input:    rbp: rounds (0 means 16384, or 256 in ring 0)
// Output:   none
// Outcomes: the final states
// Exit:     0; a forbidden state fails the iteration

#include "litmus.h"

static void p0(struct variables *v, struct registers *r) {
    (void)r;
    __asm__ volatile("movl $1, %[x]"
                     : [x] "=m"(v->x.value));
}

static void p1(struct variables *v, struct registers *r) {
    (void)r;
    __asm__ volatile("movl $1, %[y]"
                     : [y] "=m"(v->y.value));
}

static void p2(struct variables *v, struct registers *r) {
    __asm__ volatile("movl %[x], %[a]\n\t"
                     "movl %[y], %[b]"
                     : [a] "=&a"(r->a), [b] "=&b"(r->b)
                     : [x] "m"(v->x.value), [y] "m"(v->y.value));
}

static void p3(struct variables *v, struct registers *r) {
    __asm__ volatile("movl %[y], %[a]\n\t"
                     "movl %[x], %[b]"
                     : [a] "=&a"(r->a), [b] "=&b"(r->b)
                     : [x] "m"(v->x.value), [y] "m"(v->y.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[2][i].a;
    values[1] = results[2][i].b;
    values[2] = results[3][i].a;
    values[3] = results[3][i].b;
}

static bool forbidden(const uint32_t *values) {
    return values[0] == 1 && values[1] == 0 && values[2] == 1 && values[3] == 0;
}

void stress_main(struct vcpu *me) {
    static const struct litmus iriw = {
        .threads = 4,
        .thread = {p0, p1, p2, p3},
        .names = {"2:rax", "2:rbx", "3:rax", "3:rbx"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &iriw);
}
