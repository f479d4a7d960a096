package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// names are the integers that the writer knows of.
type names struct {
	sites    map[string]int64
	nodes    map[nodeName]*node
	runs     map[runName]int64
	accounts map[accountName]int64
}

type nodeName struct {
	site int64
	name string
}

type node struct{ id, span int64 }

// runName names a run, or the energy of a project without one.
type runName struct{ name, rollup string }

type accountName struct {
	site, run int64
	component string
	modelled  bool
}

func newNames() names {
	return names{
		sites:    map[string]int64{},
		nodes:    map[nodeName]*node{},
		runs:     map[runName]int64{},
		accounts: map[accountName]int64{},
	}
}

// intern returns the id that find selects, or the one that add inserts.
func (w *writer) intern(ctx context.Context, find string, key []any, add string, values []any, dest ...any) error {
	err := w.stmt(ctx, find).QueryRowContext(ctx, key...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		err = w.stmt(ctx, add).QueryRowContext(ctx, values...).Scan(dest...)
	}
	return err
}

func (w *writer) site(ctx context.Context, name string) (int64, error) {
	if id, ok := w.names.sites[name]; ok {
		return id, nil
	}
	var id int64
	err := w.intern(ctx, `SELECT id FROM site WHERE name = ?`, []any{name},
		`INSERT INTO site (name, created_ms, declared) VALUES (?, ?, 0) RETURNING id`, []any{name, w.nowMS}, &id)
	if err != nil {
		return 0, fmt.Errorf("site %q: %w", name, err)
	}
	w.names.sites[name] = id
	return id, nil
}

func (w *writer) node(ctx context.Context, siteName, name string) (site int64, n *node, err error) {
	if site, err = w.site(ctx, siteName); err != nil {
		return 0, nil, err
	}
	key := nodeName{site, name}
	if n := w.names.nodes[key]; n != nil {
		return site, n, nil
	}
	n = new(node)
	err = w.intern(ctx, `SELECT id, span FROM node WHERE site = ? AND name = ?`, []any{site, name},
		`INSERT INTO node (site, name, span) VALUES (?, ?, 0) RETURNING id, span`, []any{site, name}, &n.id, &n.span)
	if err != nil {
		return 0, nil, fmt.Errorf("node %q: %w", name, err)
	}
	w.names.nodes[key] = n
	return site, n, nil
}

func (w *writer) run(ctx context.Context, r *ledger.Run) (int64, error) {
	if r == nil {
		r = new(ledger.Run)
	}
	key := runName{name: r.Name}
	if r.Name == "" {
		key.rollup = r.Project
	}
	if id, ok := w.names.runs[key]; ok {
		return id, nil
	}
	labels := []byte("{}")
	if len(r.Labels) > 0 {
		var err error
		if labels, err = json.Marshal(r.Labels); err != nil {
			return 0, fmt.Errorf("labels of run %q: %w", r.Name, err)
		}
	}
	var id int64
	var project string
	err := w.intern(ctx, `SELECT id, project FROM run WHERE name = ? AND rollup = ?`, []any{key.name, key.rollup},
		`INSERT INTO run (name, rollup, project, labels) VALUES (?, ?, ?, ?) RETURNING id, project`,
		[]any{key.name, key.rollup, r.Project, string(labels)}, &id, &project)
	if err == nil && project == "" && r.Project != "" {
		_, err = w.tx.ExecContext(ctx, `UPDATE run SET project = ? WHERE id = ?`, r.Project, id)
		project = r.Project
	}
	if err != nil {
		return 0, fmt.Errorf("run %q: %w", r.Name, err)
	}
	if key.name == "" || project != "" {
		// Otherwise another series may still tell the project.
		w.names.runs[key] = id
	}
	return id, nil
}

func (w *writer) account(ctx context.Context, a accountName) (int64, error) {
	if id, ok := w.names.accounts[a]; ok {
		return id, nil
	}
	var id int64
	key := []any{a.site, a.run, a.component, a.modelled}
	err := w.intern(ctx, `SELECT id FROM account WHERE site = ? AND run = ? AND component = ? AND modelled = ?`, key,
		`INSERT INTO account (site, run, component, modelled) VALUES (?, ?, ?, ?) RETURNING id`, key, &id)
	if err != nil {
		return 0, fmt.Errorf("account: %w", err)
	}
	w.names.accounts[a] = id
	return id, nil
}

// series returns the memo of a series that has none yet.
func (w *writer) series(ctx context.Context, site, node int64, s *ledger.Series) (ledger.Memo, error) {
	run, err := w.run(ctx, s.Run)
	if err != nil {
		return ledger.Memo{}, err
	}
	account, err := w.account(ctx, accountName{site, run, s.Component, s.Modelled})
	if err != nil {
		return ledger.Memo{}, err
	}
	key := []any{node, s.Device, s.Component, s.Workload, run, s.Modelled}
	memo := ledger.Memo{Account: account}
	err = w.intern(ctx, `SELECT id FROM series
		WHERE node = ? AND device = ? AND component = ? AND workload = ? AND run = ? AND modelled = ?`, key,
		`INSERT INTO series (node, device, component, workload, run, modelled, account)
		VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id`, append(key, account), &memo.Series)
	if err != nil {
		return ledger.Memo{}, fmt.Errorf("series %q: %w", s.Device, err)
	}
	return memo, nil
}
