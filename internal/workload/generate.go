package workload

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I../../bpf/include" -go-package workload -type process_event -type exec_event -type process_event_kind -type loss_reason bpf ../../bpf/process.bpf.c
