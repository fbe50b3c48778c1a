// clock.c: the clocks: ACPI's PM timer, the RTC, the CPUs' TSCs against each other, and kvmclock.

#include "pc.h"

#define READS 100u
#define PM_TIMER_24_BITS 0xffffffu

// The RTC (MC146818 datasheet).
enum {
    RTC_INDEX = 0x70,
    RTC_DATA = 0x71,
    RTC_SECONDS = 0,
    RTC_MINUTES = 2,
    RTC_HOURS = 4,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_STATUS_A = 0xa,
    RTC_STATUS_B = 0xb,
    STATUS_A_UPDATING = 0x80,
    STATUS_B_24_HOURS = 2,
    STATUS_B_BINARY = 4
};

// KVM's paravirtual clock (the Linux kernel's Documentation/virt/kvm/x86/msr.rst and cpuid.rst).
#define KVM_CPUID 0x40000000
#define KVM_FEATURE_CLOCKSOURCE2 (1u << 3)
#define MSR_KVM_SYSTEM_TIME 0x4b564d01

struct kvm_time {
    volatile uint32_t version;
    uint32_t pad;
    volatile uint64_t tsc, nanoseconds;
    volatile uint32_t multiplier;
    volatile int8_t shift;
    volatile uint8_t flags, padding[2];
};

static void pm_timer(void) {
    uint32_t mask = platform.pm_timer_32_bits ? 0xffffffff : PM_TIMER_24_BITS;
    uint16_t port = (uint16_t)platform.pm_timer;
    check(port);
    uint32_t first = in32(port) & mask, last = first;
    for (uint32_t i = 0; i < READS; i++) {
        uint32_t now = in32(port) & mask;
        // Half its range is seconds: it never goes so far in between.
        if (((now - last) & mask) > mask / 2)
            fail("the PM timer went back, from 0x%x to 0x%x", last, now);
        last = now;
    }
    if (first == last)
        fail("the PM timer stands still at 0x%x", last);
}

static uint8_t rtc_read(uint8_t which) {
    out8(RTC_INDEX, which);
    return in8(RTC_DATA);
}

static uint32_t rtc_number(uint8_t which) {
    uint8_t value = rtc_read(which);
    if (rtc_read(RTC_STATUS_B) & STATUS_B_BINARY)
        return value;
    return (value >> 4) * 10u + (value & 15);
}

static void rtc(void) {
    while (rtc_read(RTC_STATUS_A) & STATUS_A_UPDATING)
        ;
    uint32_t seconds = rtc_number(RTC_SECONDS), minutes = rtc_number(RTC_MINUTES);
    uint32_t day = rtc_number(RTC_DAY), month = rtc_number(RTC_MONTH);
    if (seconds > 60 || minutes > 59 || !day || day > 31 || !month || month > 12)
        fail("the RTC says month %u, day %u, minute %u, second %u", month, day, minutes, seconds);
    if (rtc_read(RTC_STATUS_B) & STATUS_B_24_HOURS)
        check(rtc_number(RTC_HOURS) < 24);
}

static void take_time(struct cpu *cpu) {
    cpu->time = tsc();
}

// Cause before effect: a CPU is asked after this time and has answered before that.
static void time_stamps(void) {
    for (uint32_t i = 1; i < cpu_count; i++) {
        uint64_t before = tsc();
        run_on(cpus[i], take_time);
        uint64_t after = tsc(), there = cpus[i]->time;
        if (there < before || there > after)
            fail("the TSC of CPU %u is %lu, between %lu and %lu of CPU 0", i, there, before,
                 after);
    }
}

static bool kvm_clock(void) {
    struct cpuid id = cpuid(KVM_CPUID, 0);
    // "KVMKVMKVM"
    if (id.ebx != 0x4b4d564b || id.ecx != 0x564b4d56 || id.edx != 0x4d)
        return false;
    if (!(cpuid(KVM_CPUID + 1, 0).eax & KVM_FEATURE_CLOCKSOURCE2))
        return false;
    struct kvm_time *time = allocate(sizeof(*time));
    wrmsr(MSR_KVM_SYSTEM_TIME, (uint64_t)time | 1);
    // Filled in by the next entry of this vCPU.
    in8(RTC_DATA);
    check(time->version && time->version % 2 == 0);
    check(time->multiplier);
    check(time->tsc <= tsc());
    wrmsr(MSR_KVM_SYSTEM_TIME, 0);
    return true;
}

void test_clock(void) {
    pm_timer();
    rtc();
    time_stamps();
    print("clock: ok, PM timer, RTC, TSC%s\n", kvm_clock() ? ", kvmclock" : "");
}
