// tlb: a TLB shootdown by hand: one vCPU maps a virtual page elsewhere and tells the others, which
// invalidate what they have of it with INVLPG. Each must see the new page.
//
// Mode:     long
// vCPUs:    any
// Input:    rbp: rounds (0 means 50)
// Output:   none; in ring 3 "tlb: INVLPG and CR3 need ring 0, --mode long\n", and nothing else
// Outcomes: none
// Exit:     0; a vCPU that reads from the old page fails the iteration

#include "stress.h"

#define PAGE 4096
#define PRESENT 1
#define WRITABLE 2

// The virtual page: the first one of the second entry of the topmost table.
#define WINDOW ((volatile uint32_t *)(UINT64_C(1) << 39))

static _Alignas(PAGE) uint64_t pml4[512], pdpt[512], directory[512];
static _Alignas(PAGE) volatile uint64_t table[512];
static _Alignas(PAGE) volatile uint32_t pages[2][PAGE / sizeof(uint32_t)];

static uint64_t entry(const volatile void *to) {
    return (uint64_t)(uintptr_t)to | PRESENT | WRITABLE;
}

static uint64_t *boot_tables(void) {
    uint64_t cr3;
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return (uint64_t *)(uintptr_t)(cr3 & ~(uint64_t)(PAGE - 1));
}

static void use_tables(const uint64_t *tables) {
    __asm__ volatile("mov %0, %%cr3" : : "r"(tables) : "memory");
}

static void invalidate(const volatile void *address) {
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

void stress_main(struct vcpu *me) {
    static struct barrier ready, seen;
    static cache_aligned _Atomic uint32_t version;

    if (ring() == 3) {
        if (me->index == 0)
            print("tlb: INVLPG and CR3 need ring 0, --mode long\n");
        return;
    }
    uint32_t rounds = iterations(me, 50, 50);
    if (me->index == 0) {
        pml4[0] = boot_tables()[0];
        pml4[1] = entry(pdpt);
        pdpt[0] = entry(directory);
        directory[0] = entry(table);
        table[0] = entry(pages[0]);
    }
    barrier_wait(&ready, me->count);
    use_tables(pml4);

    for (uint32_t round = 1; round <= rounds; round++) {
        // Fills the TLB with the page of the round before.
        check_eq(*WINDOW, round - 1);
        barrier_wait(&seen, me->count);
        if (me->index == 0) {
            pages[round % 2][0] = round;
            table[0] = entry(pages[round % 2]);
            atomic_store(&version, round);
        }
        wait_until(atomic_load(&version) == round);
        invalidate(WINDOW);
        check_eq(*WINDOW, round);
    }
}
