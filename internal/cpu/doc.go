// Package cpu is the CPU probe: which stacks threads run with and wait with, as profiles.
//
// The kernel side (bpf/cpu.bpf.c) takes a sample on each CPU many times a second. It walks the stack, counts it by its hash,
// and sends its addresses when it is new. It walks by what this package has told it of the process: which file is mapped
// where, and tables of how frames are laid out (internal/unwind).
//
//	CPU_PROCESS       processes  reads the mappings, writes them and the tables into maps of the kernel side
//	CPU_STACK         stacks     finds the file that each address lies in, while the process is there
//	counts            resolver   names the functions (internal/symbol), makes the profile, hands it over
//
// What is not known is not guessed: a stack that was not walked to its end says so, and why.
package cpu
