package schemas

import (
	"bytes"
	"encoding/json"
)

// Item is one record of the compacted topic items, key = ItemID. An empty value deletes the item.
type Item struct {
	ItemID     string
	Embedding  []float32       // [dim], in the catalogue's own scale
	URI        string          // where the picture is; optional
	Attributes json.RawMessage // a JSON object of the producer's, or nil; passed on, never read
}

type itemJSON struct {
	ItemID     string          `json:"item_id"`
	Embedding  string          `json:"embedding_f32"`
	URI        string          `json:"uri,omitempty"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

// MarshalJSON writes the embedding as embedding_f32.
func (i Item) MarshalJSON() ([]byte, error) {
	return encode(itemJSON{i.ItemID, encodeF32(i.Embedding), i.URI, i.Attributes})
}

// UnmarshalJSON reads what [ParseItem] reads, with any dimension.
func (i *Item) UnmarshalJSON(value []byte) (err error) {
	*i, err = ParseItem(value, 0)
	return err
}

// Encode returns the record's value.
func (i Item) Encode() ([]byte, error) { return i.MarshalJSON() }

// DecodeItem decodes and checks a record; dim is the catalogue's dimension, <= 0 takes any. Errors are *[Rejection].
func DecodeItem(key, value []byte, dim int) (Item, error) {
	if len(key) == 0 {
		return Item{}, errEmptyKey()
	}
	item, err := ParseItem(value, dim)
	if err != nil {
		return Item{}, err
	}
	return item, checkKey(key, "item_id", item.ItemID)
}

// ParseItem is [DecodeItem] for a value that has no key yet, as in a file.
func ParseItem(value []byte, dim int) (Item, error) {
	item, field, err := scanItem(value)
	if err != nil {
		return Item{}, err
	}
	if err := checkID("item_id", item.ItemID); err != nil {
		return Item{}, err
	}
	if field == "" {
		return Item{}, errMissing("embedding")
	}
	return item, checkFloats(field, item.Embedding, dim)
}

// scanItem also returns which field held the embedding.
func scanItem(value []byte) (item Item, field string, err error) {
	o, err := openObject(value, MaxValue)
	if err != nil {
		return item, "", err
	}
	for {
		key, v, ok := o.next()
		if !ok {
			return item, field, nil
		}
		switch name := string(key); name {
		case "item_id":
			item.ItemID, err = v.optionalText(name)
		case "uri":
			item.URI, err = v.optionalText(name)
		case "attributes":
			item.Attributes, err = v.attributes()
		case "embedding", "embedding_f32":
			if v.null() {
				break
			}
			if field != "" && field != name {
				return item, field, reject(ReasonBadEmbedding, "both embedding and embedding_f32 are given")
			}
			field = name
			if name == "embedding" {
				item.Embedding, err = v.floats32(name)
			} else {
				item.Embedding, err = v.base64F32(name)
			}
		}
		if err != nil {
			return item, field, err
		}
	}
}

func (v raw) attributes() (json.RawMessage, error) {
	if v.null() {
		return nil, nil
	}
	if v[0] != '{' {
		return nil, reject(ReasonBadType, "attributes must be an object, is %.64s", v)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		panic("schemas: compacting validated JSON: " + err.Error())
	}
	return b.Bytes(), nil
}
