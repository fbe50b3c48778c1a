// reset-paging: looks for translations that an iteration has left for the next: it maps a page
// elsewhere in the page tables that it was given, which are put back between iterations.
//
// Mode:     user
// vCPUs:    any; all but the first only end
// Input:    none
// Output:   none
// Outcomes: none
// Exit:     0; a translation that is left fails the iteration

#include "stress.h"

#define TABLES 0xf0003000
#define FRAME 0xffffffffff000
#define BIG 0x80

#define PAGE (2ul << 20)

void stress_main(struct vcpu *me)
{
    if (me->index != 0)
        return;
    uint64_t *pml4 = (uint64_t *)TABLES;
    uint64_t *pdpt = (uint64_t *)(pml4[0] & FRAME);
    check((pdpt[0] & BIG) == 0);
    uint64_t *pd = (uint64_t *)(pdpt[0] & FRAME);
    volatile uint64_t *first = (uint64_t *)(2 * PAGE);
    volatile uint64_t *second = (uint64_t *)(3 * PAGE);

    check_eq(*second, 0);
    *second = 0x77;
    check_eq(*first, 0);
    // The processor may have the old translation, and so may the check: it is the next iteration
    // that must have it again.
    pd[2] = pd[3];
    if (ring() == 0)
        __asm__ volatile("invlpg (%0)" : : "r"(first) : "memory");
    (void)*first;
}
