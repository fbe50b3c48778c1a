// queue-spsc: a bounded queue with one producer and one consumer, without locks: a ring, of which
// each index has one writer. Every item comes once, and in order.
//
// Mode:     user
// vCPUs:    2 to 32: those with even index produce for the next one; an odd one out idles
// Input:    rbp: items of each producer (0 means 20000, or 400 in ring 0)
// Output:   none
// Outcomes: full=<0 or 1>; empty=<0 or 1>; whether the first pair met a full and an empty queue
// Exit:     0; an item that is lost, doubled or out of order fails the iteration

#include "stress.h"

#define CAPACITY 128
#define PAIRS 16

struct queue {
    cache_aligned _Atomic uint32_t head;    // of the consumer: items taken
    cache_aligned _Atomic uint32_t tail;    // of the producer: items put
    cache_aligned uint64_t items[CAPACITY];
};

static struct queue queues[PAIRS];
static _Atomic uint32_t was_full, was_empty;

static bool put(struct queue *queue, uint64_t item) {
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&queue->head, memory_order_acquire) == CAPACITY)
        return false;
    queue->items[tail % CAPACITY] = item;
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    return true;
}

static bool take(struct queue *queue, uint64_t *item) {
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    if (head == atomic_load_explicit(&queue->tail, memory_order_acquire))
        return false;
    *item = queue->items[head % CAPACITY];
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    return true;
}

void stress_main(struct vcpu *me) {
    static struct barrier finish;
    uint32_t items = iterations(me, 20000, 400), pair = me->index / 2;
    struct queue *queue = &queues[pair];
    bool waited = false;

    need_vcpus(me, 2);
    check(me->count <= 2 * PAIRS);
    if (pair == me->count / 2)
        return;
    for (uint64_t number = 1; number <= items; number++) {
        // Neither 0, which a slot is at first, nor what another pair has.
        uint64_t item = (uint64_t)(pair + 1) << 32 | number, taken;
        if (me->index % 2 == 0) {
            wait_until(put(queue, item) || !(waited = true));
        } else {
            wait_until(take(queue, &taken) || !(waited = true));
            check_eq(taken, item);
        }
    }
    if (pair == 0)
        atomic_store(me->index == 0 ? &was_full : &was_empty, waited);
    barrier_wait(&finish, me->count / 2 * 2);
    check_eq(queue->head, queue->tail);

    if (me->index == 0) {
        label("full=");
        label_decimal(was_full);
        label("; empty=");
        label_decimal(was_empty);
        label(";");
        report(was_full | was_empty << 1);
    }
}
