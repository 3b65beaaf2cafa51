//go:build linux

package unwind

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// CacheConfig says where processes are and how much to keep. Zero values take the defaults.
type CacheConfig struct {
	// ProcFS is the proc file system of the host's pid namespace. Default /proc.
	ProcFS string
	// MaxBytes is what tables, and what is remembered of files, may take. Default 64 MiB.
	MaxBytes int64
	// MaxFiles bounds the files that are remembered, with those that have no table. Default 8192.
	MaxFiles int
	// Workers is how many files are read at a time. Default 1.
	Workers int
	// MaxPending bounds the files that wait to be read; each is open. Default 128.
	MaxPending int
	// Dropped, if it is not nil, is told of every table that no file has any more, after the last process that used it was
	// closed, and before the entry is done that needed its room. It is called from several goroutines.
	Dropped func(table *Table)
	// Ready, if it is not nil, is called when an entry is done. It is called from several goroutines.
	Ready func()
}

func (c CacheConfig) withDefaults() CacheConfig {
	if c.ProcFS == "" {
		c.ProcFS = "/proc"
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 64 << 20
	}
	if c.MaxFiles <= 0 {
		c.MaxFiles = 8192
	}
	if c.Workers <= 0 {
		c.Workers = 1
	}
	if c.MaxPending <= 0 {
		c.MaxPending = 128
	}
	return c
}

// Cache has the tables of the files that processes execute, each once, however many processes and containers execute it.
// Its methods are safe for concurrent use.
type Cache struct {
	config CacheConfig
	seed   maphash.Seed
	python *Entry
	queue  chan *job
	wait   sync.WaitGroup

	mutex  sync.Mutex // guards what follows, and the fields of entries and of shared tables
	files  map[identity]*Entry
	tables map[tableKey]*sharedTable
	unused *list.List // of entries without references, those that were used last in front
	stats  Statistics
	closed bool
}

// Statistics are gauges, and totals since the Cache was made.
type Statistics struct {
	Files, Tables, Pending int   // now
	Bytes                  int64 // now
	Built                  uint64
	Shared                 uint64 // files whose table another file had already
	Evicted                uint64
	// Failures are files without a table, by Reason. Each is counted once, not for each process that executes it, unless it
	// could not even be opened.
	Failures [Reasons]uint64
	// Counts is what was left out of tables.
	Counts Counts
}

// identity tells files apart without opening them. The number of an inode is used again when its file has gone: size and
// times tell those apart. That of the vDSO is a hash of its contents.
type identity struct {
	device, inode     uint64
	bytes             int64
	modified, changed unix.Timespec
	vdso              bool
}

func identityOf(status *unix.Stat_t) identity {
	return identity{
		device: status.Dev, inode: status.Ino, bytes: status.Size, modified: status.Mtim, changed: status.Ctim,
	}
}

// tableKey tells contents apart. The build id alone would not do: whoever builds a file chooses it, and others would get the
// table. So a hash that nobody can foresee is added, of all that a table is made of.
type tableKey struct {
	buildID string
	hash    uint64
}

type sharedTable struct {
	key    tableKey
	table  *Table
	counts Counts
	users  int // entries
}

// Entry is a file in the cache.
type Entry struct {
	cache      *Cache
	identity   identity
	done       chan struct{}
	references int
	unused     *list.Element
	bytes      int64 // without the table
	shared     *sharedTable
	transient  bool // it is worth trying again, so it is not remembered

	// Set before done is closed.
	file *File
	err  error
}

// Done is closed when File has its answer.
func (e *Entry) Done() <-chan struct{} { return e.done }

// File is what is known of the file. It waits for Done. The error wraps a *Failure. If it is only about the table, there is
// the file, whose table has no rows.
func (e *Entry) File() (*File, error) {
	<-e.done
	return e.file, e.err
}

// job is a file to be read.
type job struct {
	entry *Entry
	file  *os.File // nil: image is what to read
	image []byte
}

// Place is a mapping of a process with what is known of it.
type Place struct {
	Mapping
	// Entry is the file; nil: frame pointers are all there is to try, or nothing if the mapping is special.
	Entry *Entry
	// Err says why there is no entry though there is a file.
	Err error
}

// Bias is what addresses of the process have to be reduced by for the table. It waits for the entry. There is none for a
// mapping that no segment of the file is for.
func (p *Place) Bias() (uint64, bool) {
	if p.Entry == nil {
		return 0, false
	}
	file, _ := p.Entry.File()
	if file == nil {
		return 0, false
	}
	if p.Entry == p.Entry.cache.python {
		return p.Start, true
	}
	return file.Bias(p.Start, p.Offset)
}

// Process are the executable mappings of a process, as they were when it was loaded. The tables stay until Close.
type Process struct {
	cache  *Cache
	Places []Place
	closed bool
}

// NewCache makes an empty Cache, and starts its workers.
func NewCache(config CacheConfig) *Cache {
	c := &Cache{
		config: config.withDefaults(), seed: maphash.MakeSeed(), files: map[identity]*Entry{},
		tables: map[tableKey]*sharedTable{}, unused: list.New(),
	}
	c.queue = make(chan *job, c.config.MaxPending)
	c.python = &Entry{cache: c, done: make(chan struct{}), file: pythonTrampolines(), references: 1}
	close(c.python.done)
	for range c.config.Workers {
		c.wait.Go(c.work)
	}
	return c
}

// Close stops the workers, and waits for them. Files that were not read have failed.
func (c *Cache) Close() {
	c.mutex.Lock()
	closed := c.closed
	c.closed = true
	c.mutex.Unlock()
	if !closed {
		close(c.queue)
	}
	c.wait.Wait()
}

// Statistics tells how full the cache is and what was lost.
func (c *Cache) Statistics() Statistics {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	stats := c.stats
	stats.Files, stats.Tables, stats.Pending = len(c.files), len(c.tables), len(c.queue)
	return stats
}

// Load reads the mappings of a process, and lets files be read that are not known yet. It does not wait for these: an entry
// says when it is done. With an error (a *Failure) about only some of the mappings there is the process too.
//
// The caller calls it again when the process has mapped something else, and closes what it had before afterwards.
func (c *Cache) Load(pid uint32) (*Process, error) {
	mappings, err := Mappings(c.config.ProcFS, pid)
	if err != nil {
		c.count(err)
		if len(mappings) == 0 {
			return nil, err
		}
	}
	process := &Process{cache: c, Places: make([]Place, len(mappings))}
	for index := range mappings {
		place := &process.Places[index]
		place.Mapping = mappings[index]
		if before := index - 1; before >= 0 && sameFile(&mappings[before], &place.Mapping) {
			place.Entry, place.Err = c.again(process.Places[before].Entry), process.Places[before].Err
			continue
		}
		if place.Entry, place.Err = c.enter(pid, &place.Mapping); place.Err != nil {
			c.count(place.Err)
		}
	}
	return process, err
}

func sameFile(a, b *Mapping) bool {
	return a.Kind == MappingFile && b.Kind == MappingFile && a.Inode == b.Inode && a.Major == b.Major && a.Minor == b.Minor &&
		a.Path == b.Path && a.Deleted == b.Deleted
}

// Close lets tables go that nobody else uses. A second call does nothing.
func (p *Process) Close() {
	c := p.cache
	c.mutex.Lock()
	if p.closed {
		c.mutex.Unlock()
		return
	}
	p.closed = true
	var dropped []*Table
	for index := range p.Places {
		dropped = append(dropped, c.release(p.Places[index].Entry)...)
	}
	dropped = append(dropped, c.evict(0)...)
	c.mutex.Unlock()
	c.tell(dropped)
}

func (c *Cache) count(err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.stats.Failures[ReasonOf(err)]++
}

func (c *Cache) tell(dropped []*Table) {
	if c.config.Dropped == nil {
		return
	}
	for _, table := range dropped {
		c.config.Dropped(table)
	}
}

// again takes one more reference.
func (c *Cache) again(entry *Entry) *Entry {
	if entry != nil {
		c.mutex.Lock()
		entry.references++
		c.mutex.Unlock()
	}
	return entry
}

// enter finds the entry of a mapping, or makes one.
func (c *Cache) enter(pid uint32, mapping *Mapping) (*Entry, error) {
	switch mapping.Kind {
	case MappingVDSO:
		data, err := mapping.ReadImage(c.config.ProcFS, pid)
		if err != nil {
			return nil, err
		}
		id := identity{inode: maphash.Bytes(c.seed, data), bytes: int64(len(data)), vdso: true}
		return c.take(id, &job{image: data})
	case MappingAnonymous:
		code := make([]byte, trampolineBytes)
		if count, err := mapping.readMemory(c.config.ProcFS, pid, code); err != nil || !isPythonTrampoline(code[:count]) {
			return nil, nil // Frame pointers are tried all the same.
		}
		return c.again(c.python), nil
	case MappingFile:
		return c.enterFile(pid, mapping)
	}
	return nil, nil
}

func (c *Cache) enterFile(pid uint32, mapping *Mapping) (*Entry, error) {
	// Most files are known, and need not be opened.
	var status unix.Stat_t
	link := filepath.Join(c.config.ProcFS, strconv.FormatUint(uint64(pid), 10), "map_files", mapping.span())
	if unix.Stat(link, &status) == nil && mapping.is(&status) {
		if entry := c.known(identityOf(&status)); entry != nil {
			return entry, nil
		}
	}
	file, err := mapping.Open(c.config.ProcFS, pid)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(int(file.Fd()), &status); err != nil {
		file.Close()
		return nil, failure(ReasonUnreadable, "identify %s: %w", mapping.Path, err)
	}
	return c.take(identityOf(&status), &job{file: file})
}

// known takes a reference to an entry that there is.
func (c *Cache) known(id identity) *Entry {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	entry := c.files[id]
	if entry != nil {
		c.hold(entry)
	}
	return entry
}

func (c *Cache) hold(entry *Entry) {
	entry.references++
	if entry.unused != nil {
		c.unused.Remove(entry.unused)
		entry.unused = nil
	}
}

// release gives a reference back. The mutex is held.
func (c *Cache) release(entry *Entry) (dropped []*Table) {
	if entry == nil {
		return nil
	}
	if entry.references--; entry.references > 0 {
		return nil
	}
	if entry.transient {
		return c.forget(entry)
	}
	entry.unused = c.unused.PushFront(entry)
	return nil
}

// entryBytes is about what is remembered of a file that has no table.
const entryBytes = 1 << 10

// take takes a reference to the entry of a file. If there is none it makes one, and hands the job on; else it ends it.
func (c *Cache) take(id identity, work *job) (*Entry, error) {
	if entry := c.known(id); entry != nil {
		work.end()
		return entry, nil
	}
	entry := &Entry{cache: c, identity: id, done: make(chan struct{}), bytes: entryBytes, references: 1}
	work.entry = entry
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if other := c.files[id]; other != nil { // made meanwhile
		work.end()
		c.hold(other)
		return other, nil
	}
	if c.closed {
		work.end()
		return nil, failure(ReasonClosed, "the tables for stacks were closed")
	}
	if len(c.files) >= c.config.MaxFiles && c.unused.Len() == 0 {
		work.end()
		return nil, failure(ReasonBudget, "%d files are executed, more than are remembered", len(c.files))
	}
	entry.references++ // of the worker, until it is done
	select {
	case c.queue <- work:
	default:
		work.end()
		return nil, failure(ReasonBusy, "%d files wait for their tables", c.config.MaxPending)
	}
	c.files[id] = entry
	c.stats.Bytes += entry.bytes
	return entry, nil
}

func (j *job) end() {
	if j.file != nil {
		j.file.Close()
	}
}

// work reads files until there are no more to come.
func (c *Cache) work() {
	for next := range c.queue {
		c.mutex.Lock()
		closed := c.closed
		c.mutex.Unlock()
		if closed {
			c.finish(next.entry, nil, tableKey{}, failure(ReasonClosed, "the tables for stacks were closed"))
		} else {
			c.build(next)
		}
		next.end()
	}
}

// build reads a file.
func (c *Cache) build(work *job) {
	var reader io.ReaderAt = bytes.NewReader(work.image)
	if work.file != nil {
		reader = work.file
	}
	size := work.entry.identity.bytes
	opened, err := openImage(reader, size)
	if err != nil {
		c.finish(work.entry, nil, tableKey{}, err)
		return
	}
	opened.vdso = work.file == nil
	key, err := c.keyOf(opened)
	if err != nil {
		c.finish(work.entry, opened.found, key, err)
		return
	}
	c.mutex.Lock()
	shared := c.share(work.entry, opened.found, key)
	c.mutex.Unlock()
	if !shared {
		err = opened.readTable()
	}
	c.finish(work.entry, opened.found, key, err)
}

// keyOf hashes all that the table of a file is made of.
func (c *Cache) keyOf(opened *image) (tableKey, error) {
	var hash maphash.Hash
	hash.SetSeed(c.seed)
	number := func(values ...uint64) {
		var data [8]byte
		for _, value := range values {
			binary.LittleEndian.PutUint64(data[:], value)
			hash.Write(data[:])
		}
	}
	found := opened.found
	number(uint64(found.Machine), opened.base, uint64(len(found.Segments)))
	for _, segment := range found.Segments {
		number(segment.Offset, segment.FileBytes, segment.Address, segment.MemoryBytes)
	}
	fillers := opened.fillers()
	number(uint64(len(fillers)))
	for _, fill := range fillers {
		number(uint64(fill.start), uint64(fill.end), uint64(fill.row.Rule), uint64(fill.row.Offset))
	}
	sections, err := opened.frameSections()
	if err != nil {
		return tableKey{}, err
	}
	for _, section := range sections {
		number(section.address, uint64(section.size))
		if _, err := io.Copy(&hash, io.NewSectionReader(section.reader, 0, section.size)); err != nil {
			return tableKey{}, failure(ReasonUnreadable, "read call frame information: %w", err)
		}
	}
	return tableKey{buildID: found.BuildID.Key(), hash: hash.Sum64()}, nil
}

// finish gives an entry its answer, and the table a place if there is one.
func (c *Cache) finish(entry *Entry, file *File, key tableKey, err error) {
	c.mutex.Lock()
	var dropped []*Table
	if err == nil && entry.shared == nil {
		dropped, err = c.place(entry, file, key)
	}
	if err != nil {
		reason := ReasonOf(err)
		entry.transient = reason == ReasonBudget || reason == ReasonClosed
		c.stats.Failures[reason]++
		if file != nil {
			file.Table = &Table{}
		}
	}
	entry.file, entry.err = file, err
	dropped = append(dropped, c.release(entry)...)
	dropped = append(dropped, c.evict(0)...)
	c.mutex.Unlock()
	c.tell(dropped) // first, so that their places in the kernel are free for the new one
	close(entry.done)
	if c.config.Ready != nil {
		c.config.Ready()
	}
}

// share gives an entry the table that another one has already, if there is. The mutex is held.
func (c *Cache) share(entry *Entry, file *File, key tableKey) bool {
	known := c.tables[key]
	if known == nil {
		return false
	}
	known.users++
	entry.shared, file.Table, file.Counts = known, known.table, known.counts
	c.stats.Shared++
	return true
}

// place accounts for a new table. The mutex is held.
func (c *Cache) place(entry *Entry, file *File, key tableKey) ([]*Table, error) {
	if c.share(entry, file, key) { // made meanwhile, of another file
		return nil, nil
	}
	dropped := c.evict(file.Table.Bytes())
	if c.stats.Bytes+file.Table.Bytes() > c.config.MaxBytes {
		return dropped, failure(ReasonBudget, "a table of %d bytes does not fit beside %d bytes in use, of %d",
			file.Table.Bytes(), c.stats.Bytes, c.config.MaxBytes)
	}
	entry.shared = &sharedTable{key: key, table: file.Table, counts: file.Counts, users: 1}
	c.tables[key] = entry.shared
	c.stats.Bytes += file.Table.Bytes()
	c.stats.Built++
	c.stats.Counts.add(file.Counts)
	return dropped, nil
}

func (c *Counts) add(other Counts) {
	c.Functions += other.Functions
	c.Malformed += other.Malformed
	c.Outside += other.Outside
	c.Overlapping += other.Overlapping
	c.Unsupported += other.Unsupported
	c.Truncated += other.Truncated
}

// evict drops the entries that were not used for longest until so many more bytes fit. The mutex is held.
func (c *Cache) evict(more int64) (dropped []*Table) {
	for c.stats.Bytes+more > c.config.MaxBytes || len(c.files) > c.config.MaxFiles {
		oldest := c.unused.Back()
		if oldest == nil {
			return dropped
		}
		c.stats.Evicted++
		dropped = append(dropped, c.forget(c.unused.Remove(oldest).(*Entry))...)
	}
	return dropped
}

// forget drops an entry that has no references, with its table if no other one has it. The mutex is held.
func (c *Cache) forget(entry *Entry) (dropped []*Table) {
	delete(c.files, entry.identity)
	c.stats.Bytes -= entry.bytes
	if shared := entry.shared; shared != nil {
		if shared.users--; shared.users == 0 {
			delete(c.tables, shared.key)
			c.stats.Bytes -= shared.table.Bytes()
			dropped = append(dropped, shared.table)
		}
	}
	return dropped
}
