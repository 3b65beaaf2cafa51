package profilecheck

import "fmt"

// use marks entries of a table as referred to, and what they refer to.
func (c *checker) use(table tableName, indices ...int32) {
	for _, index := range indices {
		if index < 0 || int(index) >= c.sizes[table] || c.used[table][index] {
			continue
		}
		c.used[table][index] = true
		c.follow(table, int(index))
	}
}

func (c *checker) follow(table tableName, index int) {
	switch table {
	case functionTable:
		function := c.from.FunctionTable().At(index)
		c.use(stringTable, function.NameStrindex(), function.SystemNameStrindex(), function.FilenameStrindex())
	case mappingTable:
		mapping := c.from.MappingTable().At(index)
		c.use(stringTable, mapping.FilenameStrindex())
		c.use(attributeTable, mapping.AttributeIndices().AsRaw()...)
	case locationTable:
		location := c.from.LocationTable().At(index)
		c.use(mappingTable, location.MappingIndex())
		c.use(attributeTable, location.AttributeIndices().AsRaw()...)
		for _, line := range location.Lines().All() {
			c.use(functionTable, line.FunctionIndex())
		}
	case attributeTable:
		attribute := c.from.AttributeTable().At(index)
		c.use(stringTable, attribute.KeyStrindex(), attribute.UnitStrindex())
	case stackTable:
		c.use(locationTable, c.from.StackTable().At(index).LocationIndices().AsRaw()...)
	default: // strings and links refer to nothing
	}
}

func (c *checker) orphans() {
	for table := range tableCount {
		for index, used := range c.used[table] {
			if index > 0 && !used {
				c.report(Orphan, fmt.Sprintf("dictionary.%s[%d]", table, index), "nothing refers to it")
			}
		}
	}
}
