// Package site finds the instructions of TLS libraries and of Go programs at which uprobes are to be placed.
//
// A uprobe costs little where the kernel emulates the instruction below it (push of a register, near jump, call, nop), and
// ten times more where the kernel has to execute a copy of it in the process (arch/x86/kernel/uprobes.c). So a site is an
// emulated instruction at which the values that the probe needs are proven, by reading the machine code, to lie in known
// places. Where nothing can be proven there is no site, or one that says what it costs.
//
// The package only reads: it takes a file, and gives sites. The files are those of observed processes: nothing in them
// is trusted.
package site
