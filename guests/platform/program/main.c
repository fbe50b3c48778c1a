// main.c: what runs: all tests in order, or those that the command line names.

#include "pc.h"

static const struct test {
    const char *name;
    void (*run)(void);
    bool needs_all_cpus;
    bool only_if_named;
} tests[] = {
    {"boot", test_boot, false, false},
    {"cpus", test_cpus, false, false},
    {"smp", test_smp, false, false},
    {"pit", test_pit, false, false},
    {"pic", test_pic, false, false},
    {"ioapic", test_ioapic, true, false},
    {"lapic", test_lapic, false, false},
    {"deadline", test_deadline, false, false},
    {"ipi", test_ipi, true, false},
    {"hlt", test_hlt, true, false},
    {"x2apic", test_x2apic, true, false},
    {"uart", test_uart, false, false},
    {"clock", test_clock, true, false},
    {"fw-cfg", test_fw_cfg, false, false},
    {"uart-rx", test_uart_rx, false, true},
    {"bench-smp", bench_smp, false, true},
    {"bench-timer", bench_timer, true, true},
    {"bench-ipi", bench_ipi, true, true},
    {"bench-uart", bench_uart, false, true},
};

// The exit port's values of the tests, in their order.
#define FIRST_EXIT_VALUE 0x10

void pc_main(uint32_t format, uint64_t first, uint64_t second);

static bool chosen(const struct test *test) {
    bool unasked = !test->only_if_named;
    return in_list("tests=", test->name, unasked) || (!unasked && has_word(test->name));
}

void pc_main(uint32_t format, uint64_t first, uint64_t second) {
    load_idt();
    read_boot_info(format, first, second);
    // The entry point has sent the first letter.
    print("c: %s, command line \"%s\"\n", boot.format, boot.cmdline);
    find_cpus();
    set_up_work();
    enable_apic(cpus[0], false);
    pic_set_up();
    uint32_t passed = 0;
    for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
        if (!chosen(&tests[i]))
            continue;
        test_name = tests[i].name;
        exit_value = (uint8_t)(FIRST_EXIT_VALUE + i);
        if (tests[i].needs_all_cpus)
            start_cpus();
        tests[i].run();
        passed++;
    }
    print("pc: all passed, %u tests\n", passed);
    power_off();
}
