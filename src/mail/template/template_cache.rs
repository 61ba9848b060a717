//! Keeps the compiled templates of recent deliveries, so that each is compiled once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    render::Template, template_problem::TemplateProblem, template_threads::TemplateThreads,
};
use crate::domain::delivery::{Definition, DeliveryId, Plan};

/// The most templates in the cache. At this number the cache is emptied.
const MAX_TEMPLATES: usize = 64;
/// The most bytes of all sources in the cache. A compiled template takes up to a hundred times
/// its source.
const MAX_SOURCE_BYTES: usize = 4 * 1024 * 1024;

/// Compiled templates by delivery and digest. All clones share them.
#[derive(Clone, Default)]
pub struct TemplateCache {
    templates: Arc<Mutex<CompiledTemplates>>,
    /// The threads that compile and render what may take long.
    pub threads: TemplateThreads,
}

#[derive(Default)]
struct CompiledTemplates {
    by_digest: HashMap<(DeliveryId, String), Arc<Template>>,
    source_bytes: usize,
}

impl TemplateCache {
    /// The template of a prepared delivery. It is compiled if it is not in the cache.
    ///
    /// # Errors
    ///
    /// The problems of the content, or one problem if the thread that compiles it breaks off. The
    /// content of a prepared delivery has none, unless an earlier version approved it.
    pub async fn get(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        definition: &Definition,
    ) -> Result<Arc<Template>, Vec<TemplateProblem>> {
        let key = (id.clone(), plan.digest.clone());
        if let Some(template) = self.lock().by_digest.get(&key) {
            return Ok(template.clone());
        }
        let (cache, definition) = (self.clone(), definition.clone());
        let (tracking, limit_bytes) =
            (plan.settings.tracking.clone(), plan.settings.message_limit_bytes());
        let compiled = self.threads.run(move || {
            // another caller may have compiled the same template while this one waited
            if let Some(template) = cache.lock().by_digest.get(&key) {
                return Ok(template.clone());
            }
            let Definition { sender, content, .. } = &definition;
            let template = Template::compile_approved(sender, content, &tracking, limit_bytes)?;
            let template = Arc::new(template);
            let bytes = content.parts().map(|(_, source)| source.len()).sum::<usize>();
            cache.lock().insert(key, template.clone(), bytes);
            Ok(template)
        });
        compiled.await.unwrap_or_else(|error| {
            let message = format!("could not be compiled: {error}");
            Err(vec![TemplateProblem { part: "html", line: None, message }])
        })
    }

    fn lock(&self) -> MutexGuard<'_, CompiledTemplates> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CompiledTemplates {
    fn insert(&mut self, key: (DeliveryId, String), template: Arc<Template>, bytes: usize) {
        self.source_bytes += bytes;
        if self.by_digest.len() >= MAX_TEMPLATES || self.source_bytes > MAX_SOURCE_BYTES {
            self.by_digest.clear();
            self.source_bytes = bytes;
        }
        self.by_digest.insert(key, template);
    }
}
