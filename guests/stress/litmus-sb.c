// litmus-sb: store buffering, the litmus test SB: each vCPU writes one variable and reads the
// other. Both reads may miss the other's write, which waits in a store buffer: what sets x86
// apart from sequential consistency.
//
//   P0                 P1
//   mov [x], 1         mov [y], 1
//   mov rax, [y]       mov rbx, [x]
//
// Allowed:   all; 0:rax=0; 1:rbx=0; is the relaxed one (Owens, Sarkar, Sewell, "A better x86
//            memory model: x86-TSO", TPHOLs 2009)
// Forbidden: none
//
// Mode:     user
// vCPUs:    2 or more; 2 take part
// Input:    rbp: rounds (0 means 16384, or 256 in ring 0)
// Output:   none
// Outcomes: the final states
// Exit:     0

#include "litmus.h"

static void p0(struct variables *v, struct registers *r) {
    __asm__ volatile("movl $1, %[x]\n\t"
                     "movl %[y], %[a]"
                     : [x] "=m"(v->x.value), [a] "=&a"(r->a)
                     : [y] "m"(v->y.value));
}

static void p1(struct variables *v, struct registers *r) {
    __asm__ volatile("movl $1, %[y]\n\t"
                     "movl %[x], %[b]"
                     : [y] "=m"(v->y.value), [b] "=&b"(r->b)
                     : [x] "m"(v->x.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[0][i].a;
    values[1] = results[1][i].b;
}

void stress_main(struct vcpu *me) {
    static const struct litmus sb = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"0:rax", "1:rbx"},
        .observe = observe,
    };
    run_litmus(me, &sb);
}
