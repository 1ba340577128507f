package web

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"

	"rebeca/schemas"
)

// picture is a catalogue item as the page shows it.
type picture struct {
	ID    string `json:"id"`
	Image string `json:"image"` // data URI
}

// shown is a generated record with the world's verdict and the pictures of what it is owed to.
type shown struct {
	Record  json.RawMessage `json:"record"`
	Likes   *bool           `json:"likes"`             // nil where nobody knows
	Because []picture       `json:"because,omitempty"` // of the record's because, those of the catalogue
}

// card is one person of the gallery.
type card struct {
	Slot    int       `json:"slot"`
	UserID  string    `json:"user_id"`
	Caption string    `json:"caption"`
	Events  uint64    `json:"events"`
	Liked   []picture `json:"liked"` // newest first
	Got     []shown   `json:"got"`   // newest first
}

// Pictures a card holds of each kind.
const cardPictures = 6

// userPage is everything the page of one user shows.
type userPage struct {
	UserID    string            `json:"user_id"`
	Caption   string            `json:"caption"`
	User      *User             `json:"user"`
	Generated []shown           `json:"generated"`
	Pictures  map[string]string `json:"pictures"` // item id to data URI
}

// userPageImages is how far back the page of one user goes.
const userPageImages = 60

func (s *Server) getGalleryUser(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	page := userPage{UserID: id, Caption: s.o.caption(id), Pictures: map[string]string{}}
	user, known, err := s.o.Users.User(r.Context(), id)
	if err == nil {
		page.Generated, err = s.o.generated(r.Context(), id, userPageImages)
	}
	switch {
	case err != nil:
		writeError(w, asError(err, CodeInternal))
		return
	case !known && len(page.Generated) == 0:
		writeError(w, unknownUser(r))
		return
	case known:
		page.User = &user
	}
	for _, entries := range [][]Entry{user.LastEvents, user.OlderLikes} {
		for _, e := range entries {
			if image := s.o.itemImage(e.ItemID); image != "" {
				page.Pictures[e.ItemID] = image
			}
		}
	}
	writeJSON(w, http.StatusOK, page)
}

func (s *Server) getItemImage(w http.ResponseWriter, r *http.Request) {
	png, ok := s.o.Pictures.Item(r.PathValue("id"))
	if !ok {
		writeError(w, &Error{Code: CodeNotFound, Message: "no picture of this item"})
		return
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "private, max-age=3600")
	_, _ = w.Write(png)
}

// getDemoPictures gives a visitor something to judge before anything is known of them.
func (s *Server) getDemoPictures(w http.ResponseWriter, r *http.Request) {
	n, err := numberParam(r, "n", 8, 1, 64)
	var seed uint64
	if err == nil {
		seed, err = numberParam(r, "seed", rand.Uint64(), 0, math.MaxUint64)
	}
	if err != nil {
		writeError(w, asError(err, CodeBadRequest))
		return
	}
	pictures := []picture{}
	for _, p := range s.o.Explorer.Explore(int(n), seed) {
		pictures = append(pictures, picture{p.ItemID, dataURI(p.PNG)})
	}
	writeJSON(w, http.StatusOK, map[string][]picture{"pictures": pictures})
}

// card reads one person from the table.
func (o *Options) card(ctx context.Context, slot int, userID string) (card, error) {
	c := card{Slot: slot, UserID: userID, Caption: o.caption(userID), Liked: []picture{}}
	user, _, err := o.Users.User(ctx, userID)
	if err != nil {
		return c, err
	}
	c.Events = user.Events
	seen := map[string]bool{}
	for i := len(user.LastEvents) - 1; i >= 0 && len(c.Liked) < cardPictures; i-- {
		e := user.LastEvents[i]
		if !e.positive() || seen[e.ItemID] {
			continue
		}
		seen[e.ItemID] = true
		if image := o.itemImage(e.ItemID); image != "" {
			c.Liked = append(c.Liked, picture{e.ItemID, image})
		}
	}
	c.Got, err = o.generated(ctx, userID, cardPictures)
	return c, err
}

func (o *Options) generated(ctx context.Context, userID string, limit int) ([]shown, error) {
	records, err := o.Users.Generated(ctx, userID, limit)
	out := make([]shown, len(records))
	for i, record := range records {
		out[i] = o.show(userID, record)
	}
	return out, err
}

func (o *Options) caption(userID string) string {
	if o.World == nil {
		return ""
	}
	person, ok := o.World.Person(userID)
	if !ok {
		return ""
	}
	return person.Caption
}

func (o *Options) show(userID string, record json.RawMessage) shown {
	out := shown{Record: record}
	if o.World == nil && o.Pictures == nil {
		return out
	}
	g, err := schemas.DecodeGenerated(record)
	if err != nil {
		return out
	}
	if o.World != nil {
		if likes, ok := o.World.Judge(userID, g.Embedding); ok {
			out.Likes = &likes
		}
	}
	for _, c := range g.Because {
		if image := o.itemImage(c.ItemID); image != "" {
			out.Because = append(out.Because, picture{c.ItemID, image})
		}
	}
	return out
}

func (o *Options) itemImage(itemID string) string {
	if o.Pictures == nil {
		return ""
	}
	if png, ok := o.Pictures.Item(itemID); ok {
		return dataURI(png)
	}
	return ""
}

func dataURI(png []byte) string {
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(png)
}
