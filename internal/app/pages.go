package app

import (
	"io/fs"
	"net/http"

	"github.com/ordergate/ordergate/gen/console"
	"github.com/ordergate/ordergate/gen/portal"
	"github.com/ordergate/ordergate/internal/site"
)

// pages puts the portal and, if it is to be shown, the console in front of the API. key is the API key that the pages are told in
// development, "" for none: in production they never hold one.
func (c *Components) pages(api http.Handler, key string) (*site.Site, error) {
	if c.cfg.Env != development {
		key = ""
	}
	trees := map[string]fs.FS{"/docs": portal.Files}
	settings := pageSettings{APIKey: key, Console: c.cfg.showsConsole()}
	documents := map[string]any{"/docs/config.json": settings}
	if settings.Console {
		trees["/console"] = console.Files
		documents["/console/config.json"] = settings
	}
	mounts := map[string]fs.FS{}
	for mount, files := range trees {
		tree, err := fs.Sub(files, "dist")
		if err != nil {
			return nil, err
		}
		mounts[mount] = tree
	}
	return site.New(site.Config{
		Mounts: mounts, Styled: []string{"/docs/reference"}, Home: "/docs", NotFound: "/docs/404",
		Documents: documents, API: api, Log: c.tel.Log, Registry: c.tel.Registry,
	})
}

// pageSettings are what an installation tells its pages.
type pageSettings struct {
	APIKey  string `json:"api_key"` // for trying; "": the reader has one
	Console bool   `json:"console"` // there is one
}
