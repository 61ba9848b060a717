//! Keeps the compiled templates of recent deliveries, so that each is compiled once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{render::Template, template_problem::TemplateProblem};
use crate::domain::delivery::{Definition, DeliveryId, Plan};

/// The most templates in the cache. At this number the cache is emptied.
const MAX_TEMPLATES: usize = 64;

/// Compiled templates by delivery and digest. All clones share them.
#[derive(Clone, Default)]
pub struct TemplateCache(Arc<Mutex<CompiledTemplates>>);

type CompiledTemplates = HashMap<(DeliveryId, String), Arc<Template>>;

impl TemplateCache {
    /// The template of a prepared delivery. It is compiled if it is not in the cache.
    ///
    /// # Errors
    ///
    /// The problems of the content. The content of a prepared delivery has none.
    pub fn get(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        definition: &Definition,
    ) -> Result<Arc<Template>, Vec<TemplateProblem>> {
        let key = (id.clone(), plan.digest.clone());
        if let Some(template) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(template.clone());
        }
        let (tracking, limit_bytes) =
            (&plan.settings.tracking, plan.settings.message_limit_bytes());
        let template = Arc::new(Template::compile(
            &definition.sender,
            &definition.content,
            tracking,
            limit_bytes,
        )?);
        let mut templates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if templates.len() >= MAX_TEMPLATES {
            templates.clear();
        }
        templates.insert(key, template.clone());
        Ok(template)
    }
}
