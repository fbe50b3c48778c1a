/*
 * The least program that runs a guest on KVM, for process.rs to compare minivmm with: the seven
 * steps of the KVM API, one vCPU, no threads, one write(2) for each byte of an OUT. The guest's
 * image is in image.h, which process.rs writes: IMAGE, a list of bytes.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image.h"

#define LOAD_ADDRESS 0x1000
#define MEMORY_SIZE (128ul << 20)

static const unsigned char image[] = { IMAGE };

static int check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static void *map(size_t size, int flags, int fd)
{
    void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    check(mapping == MAP_FAILED ? -1 : 0, "mmap");
    return mapping;
}

static void set_registers(int vcpu)
{
    struct kvm_sregs sregs;
    check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");

    struct kvm_regs regs = { .rip = LOAD_ADDRESS, .rax = 2, .rbx = 2, .rflags = 2 };
    check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void run(int vcpu, struct kvm_run *state)
{
    for (;;) {
        check(ioctl(vcpu, KVM_RUN, NULL), "KVM_RUN");
        if (state->exit_reason == KVM_EXIT_HLT)
            return;
        if (state->exit_reason != KVM_EXIT_IO || state->io.direction != KVM_EXIT_IO_OUT) {
            fprintf(stderr, "unexpected exit %u\n", state->exit_reason);
            exit(1);
        }
        const char *data = (const char *)state + state->io.data_offset;
        check((int)write(STDOUT_FILENO, data, state->io.size * state->io.count), "write");
    }
}

int main(void)
{
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    if (check(ioctl(kvm, KVM_GET_API_VERSION, NULL), "KVM_GET_API_VERSION") != KVM_API_VERSION)
        return 1;
    int vm = check(ioctl(kvm, KVM_CREATE_VM, 0ul), "KVM_CREATE_VM");

    unsigned char *memory = map(MEMORY_SIZE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    memcpy(memory + LOAD_ADDRESS, image, sizeof(image));
    struct kvm_userspace_memory_region region = {
        .memory_size = MEMORY_SIZE,
        .userspace_addr = (unsigned long)memory,
    };
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

    int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0ul), "KVM_CREATE_VCPU");
    int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *state = map((size_t)size, MAP_SHARED, vcpu);

    set_registers(vcpu);
    run(vcpu, state);
    return 0;
}
