// litmus-2-2w: test 2+2W: each vCPU writes both variables, in opposite order; not both first
// writes come last.
//
//   P0                 P1
//   mov [x], 1         mov [y], 1
//   mov [y], 2         mov [x], 2
//
// Allowed:   all others
// Forbidden: [x]=1; [y]=1; (Alglave, Maranget, Tautschnig, "Herding cats", TOPLAS 2014: writes of
//            one vCPU reach memory in order); and a 0, which nobody wrote
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
                     "movl $2, %[y]"
                     : [x] "=m"(v->x.value), [y] "=m"(v->y.value));
}

static void p1(struct variables *v, struct registers *r) {
    (void)r;
    __asm__ volatile("movl $1, %[y]\n\t"
                     "movl $2, %[x]"
                     : [x] "=m"(v->x.value), [y] "=m"(v->y.value));
}

static void observe(uint32_t i, uint32_t *values) {
    values[0] = instances[i].x.value;
    values[1] = instances[i].y.value;
}

static bool forbidden(const uint32_t *values) {
    return values[0] == 0 || values[1] == 0 || (values[0] == 1 && values[1] == 1);
}

void stress_main(struct vcpu *me) {
    static const struct litmus two_plus_two_w = {
        .threads = 2,
        .thread = {p0, p1},
        .names = {"[x]", "[y]"},
        .observe = observe,
        .forbidden = forbidden,
    };
    run_litmus(me, &two_plus_two_w);
}
