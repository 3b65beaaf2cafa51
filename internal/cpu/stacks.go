//go:build linux

package cpu

import (
	"slices"

	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile"
	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// keptFlushes is for how many flushes a stack is kept after its last sample. The kernel side sends it again in each era.
const keptFlushes = 6

// stack is one that was sampled. The resolver owns what is in resolved, once it has got the stack.
type stack struct {
	end      bpfWalkEnd
	key      workload.Key
	workload *workload.Workload
	kernel   []uint64
	user     []frame
	used     uint64 // the last flush that had it

	unwanted bool // its process is not selected
	resolved []profile.Location
	// Code that was made at run time, and the kernel's, may get its name later: it is looked for again, ever more rarely.
	tries   int
	retryAt uint64 // in the resolver's count of batches; 0: never
}

// frame is where a call lies.
type frame struct {
	image   *symbol.Image // nil: no file, or one that cannot be read
	path    string        // of the mapping; empty: it has no file, or is not known
	address uint64        // in the file's own address space; of the process where there is no image
	dynamic bool          // code that the process has made itself
}

// stacks are those that the kernel side has sent, by hash. One goroutine owns it.
type stacks struct {
	procfs  string
	symbols *symbol.Symbolizer
	logger  *zap.Logger
	known   map[uint64]*stack
	flush   uint64
	limit   int
	dropped uint64 // for which there was no room
}

func newStacks(procfs string, symbols *symbol.Symbolizer, limit int, logger *zap.Logger) *stacks {
	return &stacks{procfs: procfs, symbols: symbols, logger: logger, known: map[uint64]*stack{}, limit: limit}
}

// add finds the files that the addresses of a stack lie in, and says whether some are in code that the process has made
// itself. owner is nil where nothing is known of the process.
func (s *stacks) add(event stackEvent, key workload.Key, owner *process, of *workload.Workload) (dynamic bool) {
	if known := s.known[event.hash]; known != nil && (owner == nil || known.located()) {
		known.used = s.flush
		return false
	}
	if len(s.known) >= s.limit {
		s.dropped++
		return false
	}
	added := &stack{end: event.end, key: key, workload: of, kernel: slices.Clone(event.kernel), used: s.flush}
	added.user = make([]frame, len(event.user))
	for i, address := range event.user {
		added.user[i] = s.locate(owner, address)
		dynamic = dynamic || added.user[i].dynamic
	}
	s.known[event.hash] = added
	return dynamic
}

// leaveOut takes note of a stack that is not wanted.
func (s *stacks) leaveOut(hash uint64) {
	if len(s.known) >= s.limit {
		return
	}
	s.known[hash] = &stack{unwanted: true, used: s.flush}
}

// located says that the files of all frames were found as far as there are any.
func (s *stack) located() bool {
	return !slices.ContainsFunc(s.user, func(f frame) bool { return f.image == nil && f.path == "" && !f.dynamic })
}

func (s *stacks) locate(owner *process, address uint64) frame {
	at := owner.place(address)
	if at == nil {
		return frame{address: address}
	}
	found := frame{image: at.image, path: at.path, address: address, dynamic: at.kind == unwind.MappingAnonymous}
	if at.image == nil {
		return found
	}
	inFile, ok := at.image.Identity().Address(address - at.start + at.offset)
	if !ok {
		found.image = nil
		return found
	}
	found.address = inFile
	return found
}

func (s *stacks) open(owner *process, at *place) {
	var err error
	switch at.kind {
	case unwind.MappingFile:
		at.image, err = s.symbols.Open(at.source)
	case unwind.MappingVDSO:
		at.image, err = s.openVDSO(owner, at)
	}
	if err != nil {
		s.logger.Debug("Open a file for its symbols", zap.String("path", at.path), zap.Error(err))
	}
}

// openVDSO reads the code that the kernel lends to processes.
func (s *stacks) openVDSO(owner *process, at *place) (*symbol.Image, error) {
	mapped := unwind.Mapping{Start: at.start, End: at.end, Path: at.path, Kind: at.kind}
	contents, err := mapped.ReadImage(s.procfs, owner.key.PID)
	if err != nil {
		return nil, err
	}
	return s.symbols.OpenMemory(at.path, contents)
}

// advance begins the next flush and forgets stacks that were not seen for some.
func (s *stacks) advance() {
	s.flush++
	for hash, known := range s.known {
		if s.flush-known.used > keptFlushes {
			delete(s.known, hash)
		}
	}
}
