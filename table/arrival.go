package table

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// arrival judges the pairs of a copied state as Open would judge the state that they make, which saves opening it, and gives the copy an id
// of its own and every claim a higher epoch.
type arrival struct {
	options Options
	found   bool // m/meta came
	items   map[int32]uint32
}

// admit returns the value that the copy has under a key. Errors: those of Open.
func (a *arrival) admit(key, value []byte) ([]byte, error) {
	if bytes.Equal(key, keyMeta) {
		return a.another(value)
	}
	if len(key) < 2 {
		return value, nil
	}
	switch prefix := string(key[:2]); prefix {
	case prefixClaim:
		c, err := decodeClaim(value)
		if err != nil || len(key) != 7 {
			return nil, corruptKey(key, err)
		}
		higher := raised(c, 0)
		higher.Partial = c.Partial // what was only half there is so in the copy
		return higher.encode(), nil
	case prefixItem:
		return value, a.item(key, value)
	case prefixRow, prefixVector, prefixForgot, prefixErase, prefixInterned, prefixSeq, prefixQueue:
		if len(key) < 7 || key[6] != '/' {
			return nil, corruptKey(key, nil)
		}
		return value, a.divided(prefix, key, value)
	}
	return value, nil
}

func corruptKey(key []byte, err error) error {
	if err != nil {
		return fmt.Errorf("%.40q: %w", key, err)
	}
	return fmt.Errorf("%w: key %.40q", ErrCorrupt, key)
}

// another compares what the state is with the options and names the copy.
func (a *arrival) another(value []byte) ([]byte, error) {
	var m meta
	if err := m.decode(value); err != nil {
		return nil, err
	}
	if a.options.AnyRules {
		a.options.Rules = m.Rules
	}
	if err := m.compare(a.options); err != nil {
		return nil, err
	}
	a.found, m.State = true, newStateID()
	b, err := json.Marshal(m)
	if err != nil {
		panic("table: encoding meta: " + err.Error())
	}
	return b, nil
}

func (a *arrival) item(key, value []byte) error {
	_, embedding, err := decodeItem(value)
	if err != nil {
		return err
	}
	if len(embedding) != a.options.Dim {
		return fmt.Errorf("%w: item %q has %d dimensions", ErrCorrupt, key[len(prefixItem):], len(embedding))
	}
	return nil
}

// divided judges a pair that belongs to a partition.
func (a *arrival) divided(prefix string, key, value []byte) (err error) {
	name := key[7:]
	sized := true
	switch prefix {
	case prefixRow:
		err = checkRow(value)
	case prefixVector:
		_, err = vectorEvents(value)
	case prefixForgot:
		sized = len(name) == len(forgotten{})
		_, err = decodeMark(value)
	case prefixErase:
		sized = len(name) == len(forgotten{})
	case prefixSeq:
		_, err = decodeUint64("sequence number", value)
	case prefixInterned:
		if sized = len(name) == 4; sized {
			err = a.interned(int32(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint32(name))
		}
	case prefixQueue:
		switch {
		case len(name) == 9 && name[0] == 'i':
			_, _, err = decodeIntent(value)
		case len(name) > 0 && name[0] == 'm':
			_, _, _, err = splitMessageKey(key)
		default:
			sized = false
		}
	}
	if err != nil || !sized {
		return corruptKey(key, err)
	}
	return nil
}

// interned refuses item numbers that are not all there.
func (a *arrival) interned(partition int32, number uint32) error {
	if due := a.items[partition]; number != due {
		return fmt.Errorf("%w: item number %d where %d was due", ErrCorrupt, number, due)
	}
	a.items[partition]++
	return nil
}
