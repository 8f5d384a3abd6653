//! Tables of text.

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;

use crate::error::HistoryError;
use crate::schema::TABLES;
use crate::store::History;

impl History {
    /// Writes every table to `<folder>/<table>.csv`, the names of its columns first; NULL is an empty field. Returns
    /// the files and how many rows each has.
    ///
    /// # Errors
    /// A history that cannot be read, a folder that cannot be written.
    pub fn export(&self, folder: &Path) -> Result<Vec<(PathBuf, u64)>, HistoryError> {
        std::fs::create_dir_all(folder).map_err(|error| HistoryError::file(folder, error))?;
        TABLES.iter().map(|table| self.export_table(table, &folder.join(format!("{table}.csv")))).collect()
    }

    fn export_table(&self, table: &str, file: &Path) -> Result<(PathBuf, u64), HistoryError> {
        let sql_error = |error: rusqlite::Error| self.error(&error);
        let file_error = |error: csv::Error| HistoryError::file(file, error);
        let mut statement = self.connection.prepare(&format!("SELECT * FROM {table}")).map_err(sql_error)?;
        let mut out = csv::Writer::from_path(file).map_err(file_error)?;
        out.write_record(statement.column_names()).map_err(file_error)?;
        let n_columns = statement.column_count();
        let mut rows = statement.query([]).map_err(sql_error)?;
        let mut n_rows = 0;
        while let Some(row) = rows.next().map_err(sql_error)? {
            for column in 0..n_columns {
                let field = text(row.get_ref(column).map_err(sql_error)?);
                out.write_field(field).map_err(file_error)?;
            }
            out.write_record(None::<&[u8]>).map_err(file_error)?;
            n_rows += 1;
        }
        out.flush().map_err(|error| HistoryError::file(file, error))?;
        Ok((file.to_owned(), n_rows))
    }
}

/// A value as any program reads it again; floats in the fewest digits that are the same number,
/// bytes in hexadecimal.
fn text(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(n) => n.to_string().into_bytes(),
        ValueRef::Real(x) => x.to_string().into_bytes(),
        ValueRef::Text(bytes) => bytes.to_vec(),
        ValueRef::Blob(bytes) => bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
    }
}
