// litmus-n6: a vCPU reads its own write early, test n6: P0 may see x=1 from its store buffer, and
// y before P1's write, although in memory its write to x comes after both of P1's.
//
//   P0                 P1
//   mov [x], 1         mov [y], 2
//   mov rax, [x]       mov [x], 2
//   mov rbx, [y]
//
// Allowed:   0:rax=1; with any 0:rbx and any [x] that was written, of which
//            0:rax=1; 0:rbx=0; [x]=1; is the relaxed one (Owens, Sarkar, Sewell, TPHOLs 2009,
//            test n6); and 0:rax=2; 0:rbx=2; [x]=2;
// Forbidden: all others
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
                     "movl %[x], %[a]\n\t"
                     "movl %[y], %[b]"
                     : [x] "+m"(v->x.value), [a] "=&a"(r->a), [b] "=&b"(r->b)
                     : [y] "m"(v->y.value));
}

static void p1(struct variables *v, struct registers *r) {
    (void)r;
    __asm__ volatile("movl $2, %[y]\n\t"
                     "movl $2, %[x]"
                     : [x] "=m"(v->x.value), [y] "=m"(v->y.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = results[0][i].a;
    values[1] = results[0][i].b;
    values[2] = instances[i].x.value;
}

static bool forbidden(const uint32_t *values) {
    if (values[0] == 1)
        return values[2] == 0;
    return values[0] != 2 || values[1] != 2 || values[2] != 2;
}

void stress_main(struct vcpu *me) {
    static const struct litmus n6 = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"0:rax", "0:rbx", "[x]"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &n6);
}
