//go:build linux

package symbol

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"time"
)

// Config bounds what a Symbolizer keeps. The zero value has defaults for all but Now.
type Config struct {
	// MemoryBytes that tables may take, of all files and processes together; 64 MiB if 0. Mapped files do not count: the
	// kernel takes their memory back when it needs it.
	MemoryBytes int64
	// MaxFiles that are known at a time; 1024 if 0.
	MaxFiles int
	// Lines tells whether lines and inlined calls of native programs are read from their debug information (DWARF), where
	// they have it. It costs some milliseconds and megabytes for each compiled source file that addresses are in. Programs
	// of Go do not need it.
	Lines bool
	// HostRoot is where the file system of the host is; "/" if empty.
	HostRoot string
	// DebugDirectories for separate debug files; /usr/lib/debug if nil.
	DebugDirectories []string
	// Now is the time.
	Now func() time.Time
}

// Symbolizer finds symbols in files and in what processes tell of the code that they compile. It may be used by several
// goroutines at a time. Tables are made when they are needed, and dropped when others need the memory.
type Symbolizer struct {
	config Config
	seed   maphash.Seed

	mutex    sync.Mutex
	files    map[fileIdentity]*Image
	builds   map[buildKey]*Image
	images   *list.List // of *Image, the one used last in front
	maps     map[Process]*processMap
	mapOrder *list.List // of *processMap
	memory   *list.List // of *holder
	retained int64
	evicted  int64
}

// buildKey is what copies of the same file have in common. A build ID alone can be forged: a process would then choose the
// names that others get. With the hash of head, tail and length, one has to forge a file for each file.
type buildKey struct {
	gnu, golang, hash string
}

// holder is whatever has tables that can be made again.
type holder struct {
	element *list.Element
	size    int64
	drop    func()
}

const (
	defaultMemoryBytes = 64 << 20
	defaultMaxFiles    = 1024
	maxProcessMaps     = 512
	maxAliases         = 64 // file identities of one image
)

// New makes a Symbolizer.
func New(config Config) *Symbolizer {
	config.MemoryBytes = cmp.Or(config.MemoryBytes, defaultMemoryBytes)
	config.MaxFiles = cmp.Or(config.MaxFiles, defaultMaxFiles)
	config.HostRoot = cmp.Or(config.HostRoot, "/")
	if config.DebugDirectories == nil {
		config.DebugDirectories = []string{"/usr/lib/debug"}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Symbolizer{
		config: config, seed: maphash.MakeSeed(), files: map[fileIdentity]*Image{}, builds: map[buildKey]*Image{}, images: list.New(),
		maps: map[Process]*processMap{}, mapOrder: list.New(), memory: list.New(),
	}
}

// File says where a file is that a process has mapped.
type File struct {
	// Direct is a path that leads to the very file, such as PROCFS/PID/map_files/START-END. It is tried first, and may be
	// empty.
	Direct string
	// Root of the process's file system, PROCFS/PID/root, and Path in it.
	Root, Path string
}

func (f File) open() (*os.File, error) {
	var direct error
	if f.Direct != "" {
		opened, err := openRegular(f.Direct)
		if err == nil {
			return opened, nil
		}
		direct = err
	}
	if f.Root == "" || f.Path == "" {
		return nil, cmp.Or(direct, fmt.Errorf("open a file without a path: %w", ErrUnsupported))
	}
	opened, err := openInRoot(f.Root, f.Path)
	if err != nil {
		return nil, errors.Join(direct, err)
	}
	return opened, nil
}

// Image is a program or library. It has to be closed by each who has opened it.
type Image struct {
	owner      *Symbolizer
	element    *list.Element // in images
	identities []fileIdentity
	build      buildKey
	references int
	holder     *holder
	err        error // why the file cannot be used; there is no object then

	mutex  sync.Mutex
	source File
	object *object

	golang    *goTable
	golangErr error
	native    *nativeTable
	nativeErr error
	separate  *object
	searched  bool // for a separate debug file
	lines     *lineTable
	linesErr  error
}

// Open finds a file's image, new or known. What is wrong with the file is remembered.
func (s *Symbolizer) Open(source File) (*Image, error) {
	opened, err := source.open()
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	status, err := opened.Stat()
	if err != nil {
		return nil, fmt.Errorf("find out what %s is: %w", opened.Name(), err)
	}
	identity := identityOf(status)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known, ok := s.files[identity]; ok {
		return known.reference()
	}
	if !s.makeRoom() {
		return nil, fmt.Errorf("open %s with %d files in use: %w", opened.Name(), s.images.Len(), ErrTooLarge)
	}
	mapped, err := mapFile(opened)
	return s.enter(source, identity, mapped, err)
}

// OpenMemory finds the image of a file that is only in memory, new or known: the vDSO. The contents are kept.
func (s *Symbolizer) OpenMemory(name string, contents []byte) (*Image, error) {
	// No file has a number of an inode beside a size of 0.
	identity := fileIdentity{inode: maphash.Bytes(s.seed, contents)}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known, ok := s.files[identity]; ok {
		return known.reference()
	}
	if !s.makeRoom() {
		return nil, fmt.Errorf("open %s with %d files in use: %w", name, s.images.Len(), ErrTooLarge)
	}
	return s.enter(File{Path: name}, identity, &file{bytes: contents}, nil)
}

// enter makes an image of contents, unless there is one of the same. The mutex is held.
func (s *Symbolizer) enter(source File, identity fileIdentity, contents *file, err error) (*Image, error) {
	image := &Image{owner: s, source: source, identities: []fileIdentity{identity}}
	image.holder = &holder{drop: image.drop}
	if err == nil {
		err = guarded(func() error {
			image.object, err = openObject(contents)
			return err
		})
	}
	if err != nil {
		contents.close()
		image.object, image.err = nil, fmt.Errorf("open %s: %w", source.Path, err)
	} else {
		id := image.object.identity
		image.build = buildKey{id.GNU, id.Go, id.HTLHash}
		if known, ok := s.builds[image.build]; ok && (id.GNU != "" || id.Go != "") {
			contents.close()
			s.alias(known, identity)
			return known.reference()
		}
		s.builds[image.build] = image
	}
	s.files[identity] = image
	image.element = s.images.PushFront(image)
	return image.reference()
}

// alias notes another file with the same contents.
func (s *Symbolizer) alias(image *Image, identity fileIdentity) {
	if len(image.identities) == maxAliases {
		delete(s.files, image.identities[0])
		image.identities = image.identities[1:]
	}
	image.identities = append(image.identities, identity)
	s.files[identity] = image
}

func (i *Image) reference() (*Image, error) {
	i.owner.images.MoveToFront(i.element)
	if i.err != nil {
		return nil, i.err
	}
	i.references++
	return i, nil
}

// makeRoom forgets the file that nobody has used for the longest time, if there are too many.
func (s *Symbolizer) makeRoom() bool {
	for element := s.images.Back(); s.images.Len() >= s.config.MaxFiles && element != nil; {
		image := element.Value.(*Image)
		element = element.Prev()
		if image.references > 0 {
			continue
		}
		s.images.Remove(image.element)
		for _, identity := range image.identities {
			delete(s.files, identity)
		}
		if s.builds[image.build] == image {
			delete(s.builds, image.build)
		}
		s.forget(image.holder)
		image.mutex.Lock() // Free: whoever uses it has a reference.
		image.dropTables()
		if image.object != nil {
			image.object.file.close()
		}
		image.mutex.Unlock()
	}
	return s.images.Len() < s.config.MaxFiles
}

// Close gives the image back. It stays known as long as there is room.
func (i *Image) Close() {
	i.owner.mutex.Lock()
	defer i.owner.mutex.Unlock()
	i.references--
}

// Identity is what the file is known by, and how places in it become addresses.
func (i *Image) Identity() Identity { return i.object.identity }

// Lookup appends the frames at an address of the file, the innermost first. A return address has to be given less one.
// Where there are none, the error wraps ErrNoSymbol or ErrNoSymbols: a backend can then use the build ID and
// Identity.Offset.
func (i *Image) Lookup(address uint64, frames []Frame) ([]Frame, error) {
	before := len(frames)
	i.mutex.Lock()
	err := guarded(func() (err error) {
		frames, err = i.lookup(address, frames)
		return err
	})
	size := i.bound()
	i.mutex.Unlock()
	i.owner.account(i.holder, size)
	if err != nil {
		return frames[:before], fmt.Errorf("look up %#x in %s: %w", address, i.source.Path, err)
	}
	return frames, nil
}

func (i *Image) lookup(address uint64, frames []Frame) ([]Frame, error) {
	if !i.object.executable(address) {
		return frames, ErrNoSymbol
	}
	if i.golang == nil && i.golangErr == nil {
		i.golang, i.golangErr = openGo(i.object)
	}
	if i.golang != nil {
		found, err := i.golang.lookup(address, frames)
		if err == nil {
			return found, nil
		}
		frames = frames[:min(len(frames), len(found))]
	}
	return i.lookupNative(address, frames)
}

func (i *Image) lookupNative(address uint64, frames []Frame) ([]Frame, error) {
	if i.native == nil && i.nativeErr == nil {
		i.findSeparate()
		i.native, i.nativeErr = openNative(i.object, i.separate)
	}
	if i.native == nil {
		if stub, ok := i.object.stub(address); ok {
			return append(frames, nativeFrame(stub)), nil
		}
		return frames, i.nativeErr
	}
	name, err := i.native.lookup(i.object, address)
	if err != nil {
		if stub, ok := i.object.stub(address); ok {
			return append(frames, nativeFrame(stub)), nil
		}
	}
	if i.owner.config.Lines {
		if found, ok := i.lookupLines(address, name, frames); ok {
			return found, nil
		}
	}
	if err != nil {
		return frames, err
	}
	return append(frames, nativeFrame(name)), nil
}

// findSeparate looks for a separate debug file where something is missing.
func (i *Image) findSeparate() {
	if i.searched {
		return
	}
	i.searched = true
	if i.object.sectionOf(symbolTable) != nil && (!i.owner.config.Lines || i.object.hasLines()) {
		return
	}
	// That there is none is no error.
	i.separate, _ = i.object.openSeparate(i.source, i.owner.config.HostRoot, i.owner.config.DebugDirectories)
}

// bound drops tables that alone need more memory than there is, for good: they would be made again at each address.
func (i *Image) bound() int64 {
	size := i.retained()
	if size > i.owner.config.MemoryBytes && i.lines != nil {
		i.lines, i.linesErr = nil, fmt.Errorf("keep %d bytes with lines: %w", size, ErrTooLarge)
		size = i.retained()
	}
	if size > i.owner.config.MemoryBytes && i.native != nil {
		i.native, i.nativeErr = nil, fmt.Errorf("keep %d bytes of symbols: %w", size, ErrTooLarge)
		size = i.retained()
	}
	return size
}

func (i *Image) retained() int64 {
	size := int64(len(i.object.sections))*96 + int64(len(i.object.segments))*32
	if i.native != nil {
		size += i.native.retained()
	}
	if i.lines != nil {
		size += i.lines.retained()
	}
	return size
}

// drop frees the tables; they are made again when they are needed.
func (i *Image) drop() {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.dropTables()
}

func (i *Image) dropTables() {
	i.golang, i.golangErr, i.native, i.lines = nil, nil, nil, nil
	for _, err := range []*error{&i.nativeErr, &i.linesErr} {
		if !errors.Is(*err, ErrTooLarge) { // They would be too large again.
			*err = nil
		}
	}
	if i.separate != nil {
		i.separate.file.close()
		i.separate = nil
	}
	i.searched = false
	if i.object != nil {
		i.object.searched = 0
	}
}

// account notes how much memory a holder has now, and makes those that were not used for the longest time drop theirs.
func (s *Symbolizer) account(h *holder, size int64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.retained += size - h.size
	h.size = size
	if h.element == nil {
		h.element = s.memory.PushFront(h)
	}
	s.memory.MoveToFront(h.element)
	for s.retained > s.config.MemoryBytes {
		oldest := s.memory.Back().Value.(*holder)
		s.forget(oldest)
		s.evicted++
		s.mutex.Unlock() // A holder may be in use, and its user may wait for this.
		oldest.drop()
		s.mutex.Lock()
	}
}

func (s *Symbolizer) forget(h *holder) {
	if h.element != nil {
		s.memory.Remove(h.element)
		h.element = nil
	}
	s.retained -= h.size
	h.size = 0
}

// Stats tells what a Symbolizer has.
type Stats struct {
	Files, ProcessMaps int
	RetainedBytes      int64 // of tables
	CapacityBytes      int64
	Evicted            int64 // tables that were dropped because others needed the memory
}

// Stats tells what the Symbolizer has.
func (s *Symbolizer) Stats() Stats {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return Stats{
		Files: s.images.Len(), ProcessMaps: s.mapOrder.Len(), RetainedBytes: s.retained,
		CapacityBytes: s.config.MemoryBytes, Evicted: s.evicted,
	}
}

// processMap is the map of a process's compiled code.
type processMap struct {
	process Process
	element *list.Element
	holder  *holder
	mutex   sync.Mutex
	table   perfMap
}

// LookupProcess appends the frame at an address in memory of a process, outside of its files: code that it has compiled
// itself. Where there is none, the error wraps ErrNoSymbol, ErrNoSymbols or ErrRefused.
func (s *Symbolizer) LookupProcess(process Process, address uint64, frames []Frame) ([]Frame, error) {
	m := s.processMap(process)
	m.mutex.Lock()
	frame, err := m.table.lookup(address, s.config.Now())
	size := m.table.retained()
	m.mutex.Unlock()
	s.account(m.holder, size)
	if err != nil {
		return frames, fmt.Errorf("look up %#x in the map of %s: %w", address, process.Directory, err)
	}
	return append(frames, frame), nil
}

// KeepProcess opens the map of a process, so that it can be read after the process has ended.
func (s *Symbolizer) KeepProcess(process Process) error {
	m := s.processMap(process)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.table.kept != nil {
		return nil
	}
	if err := m.table.keep(); err != nil {
		return fmt.Errorf("keep the map of %s: %w", process.Directory, err)
	}
	return nil
}

func (s *Symbolizer) processMap(process Process) *processMap {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known, ok := s.maps[process]; ok {
		s.mapOrder.MoveToFront(known.element)
		return known
	}
	if s.mapOrder.Len() >= maxProcessMaps {
		s.forgetMap(s.mapOrder.Back().Value.(*processMap))
	}
	m := &processMap{process: process, table: perfMap{open: process.openPerfMap}}
	m.holder = &holder{drop: m.drop}
	m.element = s.mapOrder.PushFront(m)
	s.maps[process] = m
	return m
}

func (m *processMap) drop() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.table.close()
	m.table = perfMap{open: m.process.openPerfMap}
}

func (s *Symbolizer) forgetMap(m *processMap) {
	s.mapOrder.Remove(m.element)
	delete(s.maps, m.process)
	s.forget(m.holder)
	m.mutex.Lock() // Free, or held by one that looks up an address and does not need what is locked here.
	defer m.mutex.Unlock()
	m.table.close()
	m.table = perfMap{open: errForgotten}
}

// errForgotten keeps a map from being opened that nobody would close.
func errForgotten() (*os.File, error) {
	return nil, fmt.Errorf("the process was forgotten: %w", ErrNoSymbols)
}

// ForgetProcess frees what is known of a process that has ended.
func (s *Symbolizer) ForgetProcess(process Process) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if m, ok := s.maps[process]; ok {
		s.forgetMap(m)
	}
}

// Shutdown frees everything. No image may be in use.
func (s *Symbolizer) Shutdown() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for element := s.images.Front(); element != nil; element = element.Next() {
		image := element.Value.(*Image)
		image.mutex.Lock()
		image.dropTables()
		if image.object != nil {
			image.object.file.close()
			image.object = nil
		}
		image.mutex.Unlock()
		s.forget(image.holder)
	}
	for _, m := range s.maps {
		m.drop()
	}
	clear(s.files)
	clear(s.builds)
	clear(s.maps)
	s.images.Init()
	s.mapOrder.Init()
	s.memory.Init()
	s.retained = 0
}
