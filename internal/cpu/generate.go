package cpu

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I../../bpf/include" -go-package cpu -type process -type mapping -type mapping_kind -type walk_end -type cpu_event -type stack_event -type cpu_event_kind -type sample_key -type sample_value -type sample_event -type sample_kind -type cpu_count -type loss_reason bpf ../../bpf/cpu.bpf.c
