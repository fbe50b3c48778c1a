// interrupts.c: the interrupt descriptor table, and who handles which vector.

#include "pc.h"

#include "entry.h"

// What vectors.S leaves on the stack.
struct frame {
    uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

// A present 64-bit interrupt gate (SDM volume 3, section 7.14.1).
#define INTERRUPT_GATE 0x8e
#define VECTORS 256
#define FIRST_INTERRUPT 32
#define VECTOR_SIZE 16

extern char vectors[];

static struct gate idt[VECTORS] __attribute__((aligned(16)));
static handler *handlers[VECTORS];

void interrupt(struct frame *frame);

void set_handler(uint32_t vector, handler *handle) {
    uint64_t entry = (uint64_t)vectors + vector * VECTOR_SIZE;
    idt[vector].offset_low = (uint16_t)entry;
    idt[vector].offset_middle = (uint16_t)(entry >> 16);
    idt[vector].selector = SELECTOR_CODE;
    idt[vector].type = INTERRUPT_GATE;
    handlers[vector] = handle;
}

static void unexpected(struct cpu *cpu, uint32_t vector) {
    if (vector == VECTOR_SPURIOUS) {
        cpu->events[EVENT_SPURIOUS]++;
        return;
    }
    fail("unexpected interrupt 0x%x on CPU %u", vector, cpu->index);
}

void load_idt(void) {
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
    if (!idt[0].type)
        for (uint32_t vector = 0; vector < VECTORS; vector++)
            set_handler(vector, unexpected);
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void interrupt(struct frame *frame) {
    uint32_t vector = (uint32_t)frame->vector;
    if (vector < FIRST_INTERRUPT && vector != VECTOR_NMI) {
        uint64_t cr2;
        __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
        fail("exception %u, error code 0x%lx, at 0x%lx, CR2 0x%lx", vector, frame->error,
             frame->rip, cr2);
    }
    handlers[vector](this_cpu(), vector);
}
