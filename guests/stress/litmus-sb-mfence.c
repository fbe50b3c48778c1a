// litmus-sb-mfence: store buffering with fences, SB+mfences: MFENCE empties the store buffer
// before the read, so one of the two sees the other's write.
//
//   P0                 P1
//   mov [x], 1         mov [y], 1
//   mfence             mfence
//   mov rax, [y]       mov rbx, [x]
//
// Allowed:   all others
// Forbidden: 0:rax=0; 1:rbx=0; (Owens, Sarkar, Sewell, TPHOLs 2009, test amd5)
//
// Mode:     user
// vCPUs:    2 or more; 2 take part
// Input:    rbp: rounds (0 means 16384, or 256 in ring 0)
// Output:   none
// Outcomes: the final states
// Exit:     0; a forbidden state fails the iteration

#include "litmus.h"

static void p0(struct variables *v, struct registers *r) {
    __asm__ volatile("movl $1, %[x]\n\t"
                     "mfence\n\t"
                     "movl %[y], %[a]"
                     : [x] "=m"(v->x.value), [a] "=&a"(r->a)
                     : [y] "m"(v->y.value));
}

static void p1(struct variables *v, struct registers *r) {
    __asm__ volatile("movl $1, %[y]\n\t"
                     "mfence\n\t"
                     "movl %[x], %[b]"
                     : [y] "=m"(v->y.value), [b] "=&b"(r->b)
                     : [x] "m"(v->x.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[0][i].a;
    values[1] = results[1][i].b;
}

static bool forbidden(const uint32_t *values) {
    return values[0] == 0 && values[1] == 0;
}

void stress_main(struct vcpu *me) {
    static const struct litmus sb_mfence = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"0:rax", "1:rbx"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &sb_mfence);
}
