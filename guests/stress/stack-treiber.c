// stack-treiber: R. K. Treiber's stack without locks: compare-and-exchange of the head, which has
// a tag that counts up, so that a head that went and came back (ABA) is not taken for the same.
// vCPUs move nodes between two stacks, two at a time; each node is always in one place.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: moves of each vCPU (0 means 20000, or 150 in ring 0)
// Output:   none
// Outcomes: empty=<0 or 1>; whether a vCPU met an empty stack
// Exit:     0; a node that is lost, or that two vCPUs have at once, fails the iteration

#include "stress.h"

// Few, so that the same node comes back soon.
#define NODES 8

// Nodes have numbers from 1; 0 is none.
struct node {
    cache_aligned _Atomic uint32_t next;
    _Atomic uint32_t owner;                 // index + 1 of the vCPU that has popped it
};

static struct node nodes[NODES + 1];

// The tag in the high half, the node's number in the low half: 64 bits, because some hosts do not
// emulate CMPXCHG16B.
struct stack {
    cache_aligned _Atomic uint64_t head;
};

static struct stack stacks[2];
static _Atomic uint32_t was_empty;

static uint64_t with_next_tag(uint64_t head, uint32_t node) {
    return ((head >> 32) + 1) << 32 | node;
}

static void push(struct stack *stack, uint32_t node) {
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_relaxed);
    do
        atomic_store_explicit(&nodes[node].next, (uint32_t)head, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, with_next_tag(head, node),
                                                  memory_order_release, memory_order_relaxed));
}

// Lingers at times between the two steps: it takes ABA a while to happen.
static uint32_t pop(struct vcpu *me, struct stack *stack) {
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_acquire);
    for (;;) {
        uint32_t node = (uint32_t)head;
        if (!node)
            return 0;
        // Another may pop it meanwhile, and push it elsewhere: then the tag differs.
        uint32_t next = atomic_load_explicit(&nodes[node].next, memory_order_relaxed);
        if (random_fast(me) % 16 == 0)
            __builtin_ia32_pause();
        if (atomic_compare_exchange_weak_explicit(&stack->head, &head, with_next_tag(head, next),
                                                  memory_order_acquire, memory_order_acquire))
            return node;
    }
}

// Pops a node that nobody else may have; 0 if there is none.
static uint32_t pop_checked(struct vcpu *me, struct stack *stack) {
    uint32_t node = pop(me, stack);
    if (node) {
        check(node <= NODES);
        check_eq(atomic_exchange(&nodes[node].owner, me->index + 1), 0);
    } else {
        was_empty = 1;
    }
    return node;
}

static void push_checked(struct vcpu *me, struct stack *stack, uint32_t node) {
    if (node) {
        check_eq(atomic_exchange(&nodes[node].owner, 0), me->index + 1);
        push(stack, node);
    }
}

void stress_main(struct vcpu *me) {
    static struct barrier start, finish;
    uint32_t moves = iterations(me, 20000, 150);

    if (me->index == 0)
        for (uint32_t node = 1; node <= NODES; node++)
            push(&stacks[0], node);
    barrier_wait(&start, me->count);

    for (uint32_t i = 0; i < moves; i++) {
        uint32_t random = random_fast(me);
        uint32_t one = pop_checked(me, &stacks[random & 1]);
        uint32_t other = pop_checked(me, &stacks[random >> 1 & 1]);
        // The one that was popped first goes back first: that makes ABA of it.
        push_checked(me, &stacks[random >> 2 & 1], one);
        push_checked(me, &stacks[random >> 3 & 1], other);
    }
    barrier_wait(&finish, me->count);

    if (me->index == 0) {
        uint32_t left = 0, empty = was_empty;
        for (unsigned i = 0; i < 2; i++)
            while (pop_checked(me, &stacks[i]))
                left++;
        check_eq(left, NODES);
        label("empty=");
        label_decimal(empty);
        label(";");
        report(empty);
    }
}
