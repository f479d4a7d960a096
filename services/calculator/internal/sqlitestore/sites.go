package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

const siteQuery = `SELECT name, zone, pue, created_ms, declared FROM site`

func scanSite(rows scanner) (ledger.Site, error) {
	var s ledger.Site
	var zone, pue sql.NullString
	if err := rows.Scan(&s.Name, &zone, &pue, &s.CreatedMS, &s.Declared); err != nil {
		return s, err
	}
	s.Zone = zone.String
	if pue.Valid {
		d, err := unit.ParseDecimal(pue.String)
		if err != nil {
			return s, fmt.Errorf("pue %q: %w", pue.String, errCorrupt)
		}
		s.PUE = &d
	}
	return s, nil
}

// CreateSite implements [ledger.Sites].
func (s *Store) CreateSite(ctx context.Context, site ledger.Site) (stored ledger.Site, created bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var zone, pue sql.NullString
	if site.Zone != "" {
		zone = sql.NullString{String: site.Zone, Valid: true}
	}
	if site.PUE != nil {
		pue = sql.NullString{String: site.PUE.String(), Valid: true}
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `INSERT INTO site (name, zone, pue, created_ms, declared) VALUES (?, ?, ?, ?, 1)
			ON CONFLICT (name) DO UPDATE SET zone = excluded.zone, pue = excluded.pue, declared = 1 WHERE NOT declared
			RETURNING name, zone, pue, created_ms, declared`, site.Name, zone, pue, site.CreatedMS)
		stored, err = scanSite(row)
		created = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			stored, err = scanSite(tx.QueryRowContext(ctx, siteQuery+` WHERE name = ?`, site.Name))
		}
		return err
	})
	if err != nil {
		return ledger.Site{}, false, fmt.Errorf("ledger: site %q: %w", site.Name, err)
	}
	return stored, created, nil
}

// ListSites implements [ledger.Sites].
func (s *Store) ListSites(ctx context.Context, after string, limit int) ([]ledger.Site, error) {
	var sites []ledger.Site
	err := s.read(ctx, "sites", func(tx *sql.Tx) error {
		return each(ctx, tx, siteQuery+` WHERE name > ? ORDER BY name LIMIT ?`, []any{after, limit}, func(rows *sql.Rows) error {
			site, err := scanSite(rows)
			sites = append(sites, site)
			return err
		})
	})
	return sites, err
}
