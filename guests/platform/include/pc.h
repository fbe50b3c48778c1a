// pc.h: what the parts of the PC guests have of each other. What each guest prints and which words
// its command line takes: docs/platform-guests.md.
//
// vCPU 0, the boot CPU, runs the tests. The others sleep, and run what it hands to them: work.c.

#ifndef PC_H
#define PC_H

#include "machine.h"

// What is counted of interrupts that reach a CPU.
enum event {
    EVENT_FIXED,
    EVENT_LOWEST,
    EVENT_NMI,
    EVENT_SELF,
    EVENT_PIT,
    EVENT_PIC,
    EVENT_TIMER,
    EVENT_SPURIOUS,
    EVENTS
};

// Interrupt vectors. Those of the PICs are multiples of 8.
enum vector {
    VECTOR_NMI = 2,
    VECTOR_PIC = 0x20,
    VECTOR_PIC_SLAVE = 0x28,
    VECTOR_PIT = 0x30,
    VECTOR_UART = 0x31,
    VECTOR_TIMER = 0x40,
    VECTOR_FIXED = 0x50,
    VECTOR_LOWEST = 0x51,
    VECTOR_SELF = 0x52,
    VECTOR_PING = 0x53,
    VECTOR_WAKE = 0x60,
    VECTOR_WATCHDOG = 0xe0,
    VECTOR_WATCHDOG_TICK = 0xe1,
    VECTOR_SPURIOUS = 0xff
};

// A CPU. Each writes its own, unless said otherwise; GS points to it.
struct cpu {
    struct cpu *self;               // this_cpu() and start.S know where these two are
    void *stack;
    uint32_t index;                 // 0: the boot CPU
    uint32_t apic_id;
    uint32_t logical_id;            // its bits in a logical destination
    bool x2apic;
    volatile uint32_t starts;       // how often it came out of INIT
    void (*volatile work)(struct cpu *);        // the boot CPU writes it
    volatile uint32_t events[EVENTS];
    volatile uint32_t token;        // for tests
    volatile uint64_t time;         // for tests
} __attribute__((aligned(64)));

// The destination that is all CPUs in xAPIC mode, at the IOAPIC and in the MP table: ids from here
// on take x2APIC (SDM volume 3, section 12.6.2.1).
#define XAPIC_BROADCAST 0xffu

// So many CPUs have a logical id in the flat model of xAPIC: one bit each (section 12.6.2.2).
#define FLAT_CPUS 8u

#define MSR_GS_BASE 0xc0000101
#define MSR_TSC_DEADLINE 0x6e0

static inline struct cpu *this_cpu(void) {
    struct cpu *cpu;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

// ---- print.c -------------------------------------------------------------------------------

// Formats %s, %c, %u, %x, %lu, %lx and %%, without widths, and sends the text to COM1, polled.
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The name of the test that runs; failures begin with it.
extern const char *test_name;

// Says what is wrong and ends the VM through the exit port, with exit_value.
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern uint8_t exit_value;

#define check(condition)                                                                      \
    do {                                                                                      \
        if (!(condition))                                                                     \
            fail("%s:%u: %s", __FILE_NAME__, __LINE__, #condition);                           \
    } while (0)

// Fails unless both are equal, and says what they are.
#define check_equal(left, right)                                                              \
    do {                                                                                      \
        uint64_t left_ = (left), right_ = (right);                                            \
        if (left_ != right_)                                                                  \
            fail("%s:%u: %s is 0x%lx and %s is 0x%lx", __FILE_NAME__, __LINE__, #left, left_, \
                 #right, right_);                                                             \
    } while (0)

// ---- memory.c ------------------------------------------------------------------------------

// The first three the compiler calls, too.
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
bool equal(const char *left, const char *right);

// Zeroed memory, aligned to 64 bytes, for good.
void *allocate(size_t size);

// Whether the bytes add up to 0, as those of tables do.
bool sums_to_zero(const void *bytes, size_t size);

// Looks for a signature that starts at a multiple of 16; NULL if there is none.
const void *find_signature(const char *signature, uint64_t start, uint64_t end);

// ---- boot.c and one file for each format ---------------------------------------------------

struct range {
    uint64_t start, end;
};

#define MAX_RANGES 32
#define MAX_MODULES 8
#define MAX_CMDLINE 2048
#define MAX_MODULE_ARGS 64

struct module {
    struct range place;
    char args[MAX_MODULE_ARGS];
};

// What the loader has told, copied.
struct boot {
    const char *format;
    char cmdline[MAX_CMDLINE];
    struct range ram[MAX_RANGES];
    uint32_t ram_ranges;
    struct module modules[MAX_MODULES];
    uint32_t module_count;
    uint64_t rsdp;                  // 0: not told
    uint32_t cpus;                  // 0: not told
};

extern struct boot boot;

void read_boot_info(uint32_t format, uint64_t first, uint64_t second);
void read_multiboot(uint64_t magic, uint64_t info);
void read_pvh(uint64_t start_info);
void read_linux(uint64_t boot_params);

void read_fw_cfg_cmdline(void);

// For all of those: each fails when there is no room.
void add_ram(uint64_t start, uint64_t size);
void add_module(uint64_t start, uint64_t size, uint64_t args);
void set_cmdline(uint64_t text);

// The longest stretch of unused RAM behind the program.
struct range free_ram(void);

void test_boot(void);

// The value of `name=` on the command line, or `missing`.
uint32_t parameter(const char *name, uint32_t missing);

// Whether `word` is on the command line.
bool has_word(const char *word);

// Whether `word` is in the list `name=a,b,c` on the command line. `missing` if there is no list.
bool in_list(const char *name, const char *word, bool missing);

// ---- acpi.c, mptable.c, cpus.c -------------------------------------------------------------

#define ISA_LINES 16u

struct platform {
    uint64_t local_apic;
    uint64_t io_apic;
    uint32_t io_apic_gsi_base;
    // Interrupt of each ISA line at the IOAPIC, and its flags (MPS INTI flags).
    uint32_t isa_gsi[ISA_LINES];
    uint16_t isa_flags[ISA_LINES];
    uint32_t pm_timer;              // port; 0: none
    bool pm_timer_32_bits;
    uint32_t pm1a_control;          // port
    uint16_t sleep_type;            // of \_S5, for PM1a_CNT
};

extern struct platform platform;

// Local APIC ids, in the order of the table.
struct id_list {
    uint32_t count;
    uint32_t *ids;
};

// Reads the tables and checks them.
struct id_list read_acpi(void);
struct id_list read_mp_table(void);

extern struct cpu **cpus;
extern uint32_t cpu_count;

// Makes the list of CPUs, the running one first.
void find_cpus(void);
void test_cpus(void);

_Noreturn void power_off(void);

// ---- interrupts.c, apic.c, legacy.c --------------------------------------------------------

void load_idt(void);
typedef void handler(struct cpu *cpu, uint32_t vector);
void set_handler(uint32_t vector, handler *handle);

// Local APIC registers: offsets of the memory-mapped ones (SDM volume 3, table 12-1).
enum apic_register {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_DIVIDE = 0x3e0,
    APIC_SELF_IPI = 0x3f0
};

enum {
    DELIVER_FIXED = 0x000,
    DELIVER_LOWEST = 0x100,
    DELIVER_NMI = 0x400,
    DELIVER_INIT = 0x500,
    DELIVER_START_UP = 0x600,
    DELIVER_EXTINT = 0x700,
    DESTINATION_LOGICAL = 0x800,
    ICR_ASSERT = 0x4000,
    LEVEL_TRIGGERED = 0x8000,
    ICR_SELF = 0x40000,
    ICR_ALL = 0x80000,
    ICR_OTHERS = 0xc0000,
    LVT_MASKED = 0x10000,
    TIMER_PERIODIC = 0x20000,
    TIMER_DEADLINE = 0x40000
};

uint32_t apic_read(enum apic_register which);
void apic_write(enum apic_register which, uint32_t value);

// Switches the APIC of this CPU on: in x2APIC mode if asked for, which cannot be taken back.
void enable_apic(struct cpu *cpu, bool x2apic);
bool has_x2apic(void);
bool has_deadline_timer(void);

// The id as the APIC gives it.
uint32_t own_apic_id(void);

// Sends an IPI to `destination`, an APIC id or logical id; `command` is the low half of the ICR.
void send_ipi(uint32_t destination, uint32_t command);
void end_of_interrupt(void);

void io_apic_route(uint32_t gsi, uint16_t flags, uint32_t destination, uint32_t command);
void io_apic_mask(uint32_t gsi);
uint32_t io_apic_pins(void);

void pic_set_up(void);
void pic_mask(uint16_t mask);
void pic_end_of_interrupt(uint32_t line);

#define PIT_HZ 1193182u

// Has channel 0 tick every `count` cycles; 0 is 65536.
void pit_start(uint16_t count);
// Has it tick once, after `count` cycles.
void pit_once(uint16_t count);
// Stops it.
void pit_stop(void);

// ---- work.c and smp.c ----------------------------------------------------------------------

// Sleeps until the condition holds; it has to be made true by an interrupt to this CPU.
#define sleep_until(condition)                                                                \
    do {                                                                                      \
        interrupts_off();                                                                     \
        while (!(condition)) {                                                                \
            sleep_with_interrupts();                                                          \
            interrupts_off();                                                                 \
        }                                                                                     \
        interrupts_on();                                                                      \
    } while (0)

// As sleep_until(), on the boot CPU, which fails when nothing comes for long.
#define wait_for(condition)                                                                   \
    do {                                                                                      \
        watchdog_start(#condition);                                                           \
        sleep_until(condition);                                                               \
        watchdog_stop();                                                                      \
    } while (0)

// The watchdog is the local timer, or where that is what is tested the PIT.
void watchdog_use_pit(bool use);
void watchdog_start(const char *what);
void watchdog_stop(void);

// Brings the others up if they are not; and sets the logical ids.
void start_cpus(void);
// Switches all CPUs from xAPIC to x2APIC mode.
void use_x2apic(void);
void test_smp(void);

// Runs `work` on one CPU, on all but this one, or on all, and waits until it is done.
void run_on(struct cpu *cpu, void (*work)(struct cpu *));
void run_on_others(void (*work)(struct cpu *));
void run_on_all(void (*work)(struct cpu *));

// The same in two parts, on another CPU.
void begin_on(struct cpu *cpu, void (*work)(struct cpu *));
void end_work(void);

// What a CPU does when it has come up: sleeps and works.
_Noreturn void sleep_and_work(struct cpu *cpu);

// Wakes the boot CPU.
void wake_boot_cpu(void);
void wake(struct cpu *cpu);

void set_up_work(void);

// ---- the tests and benches -----------------------------------------------------------------

void test_pit(void);
void test_pic(void);
void test_ioapic(void);
void test_lapic(void);
void test_deadline(void);
void test_ipi(void);
void test_x2apic(void);
void test_hlt(void);
void test_uart(void);
void test_uart_rx(void);
void test_clock(void);
void test_fw_cfg(void);

// This many bytes of the alphabet, again and again, and two ways to send a text.
const char *alphabet(uint32_t size);
void uart_send_by_polling(const char *text, uint32_t size);
void uart_send_by_interrupt(const char *text, uint32_t size);

void bench_timer(void);
void bench_ipi(void);
void bench_uart(void);
void bench_smp(void);

#endif
